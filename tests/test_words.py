import unicodedata

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semhub_utils.data import words
from semhub_utils.data.words import LANGUAGES

SCRIPTS = {"ar": "ARABIC", "fa": "ARABIC", "ru": "CYRILLIC", "ko": "HANGUL", "zh": "CJK UNIFIED IDEOGRAPH"}
LATIN = ("de", "en", "es", "fr", "id", "it", "pt", "tr")


@pytest.fixture(scope="module")
def tidy():
    return words()


@pytest.fixture(scope="module")
def wide(tidy):
    return tidy.pivot(index="concept", columns="language", values="word")


def letters(word):
    return [unicodedata.name(c, "") for c in word if c.isalpha()]


def test_there_are_at_least_1200_concepts_complete_in_14_languages_and_emoji(tidy, wide):
    assert len(LANGUAGES) == len(set(LANGUAGES)) == 14
    assert sorted(wide.columns) == sorted([*LANGUAGES, "emoji"])
    assert len(wide) >= 1200
    assert len(tidy) == 15 * len(wide)
    assert wide.notna().all(axis=None)
    assert (wide != "").all(axis=None)


def test_the_frame_is_tidy(tidy):
    assert list(tidy.columns) == ["concept", "language", "word"]
    assert list(tidy.index) == list(range(len(tidy)))
    assert not tidy.duplicated(["concept", "language"]).any()
    assert tidy.language[:15].tolist() == [*LANGUAGES, "emoji"]
    assert tidy.concept[:15].nunique() == 1
    english = tidy[tidy.language == "en"]
    assert (english.concept == english.word).all()


def test_every_word_stands_for_one_concept_in_each_column(wide):
    for language in wide.columns:
        assert not wide[language].str.casefold().duplicated().any(), language


def test_words_are_as_one_writes_them(tidy):
    named = tidy[tidy.language != "emoji"].word
    assert not named.str.contains(r"[_:()（）]|\s\s", regex=True).any()
    assert (named == named.str.strip()).all()
    assert (named == named.map(lambda w: unicodedata.normalize("NFC", w))).all()
    assert named.map(lambda w: any(c.isalnum() for c in w)).all()


def test_no_skin_tones_flags_keycaps_clock_faces_or_variants_of_people(wide):
    assert wide.emoji.str.len().max() <= 5
    points = wide.emoji.map(lambda e: {ord(c) for c in e})
    for low, high in ((0x1F3FB, 0x1F3FF), (0x1F1E6, 0x1F1FF), (0x1F550, 0x1F567), (0xE0020, 0xE007F), (0x20E3, 0x20E3)):
        assert not points.map(lambda p, low=low, high=high: any(low <= c <= high for c in p)).any(), hex(low)
    people = {0x1F468, 0x1F469, 0x1F9D1, 0x2640, 0x2642}
    assert not points.map(lambda p: 0x200D in p and bool(p & people)).any()


def test_no_flags_and_no_people_that_are_joined_from_others(wide):
    joined = wide.emoji[wide.emoji.str.contains("\u200d")]
    assert not joined.str.startswith(("\U0001f3f4", "\U0001f3f3")).any(), joined.index.tolist()
    assert not joined.str.contains("\u27a1").any(), "a person who faces right is a variant of a person"


def test_emoji_are_written_without_letters_and_digits(wide):
    assert not wide.emoji.str.contains("[0-9A-Za-z]", regex=True).any()


@pytest.mark.parametrize(("language", "script"), SCRIPTS.items())
def test_languages_are_written_in_their_script(wide, language, script):
    own = wide[language].map(lambda w: any(name.startswith(script) for name in letters(w)))
    assert own.mean() > 0.98, wide[language][~own].tolist()[:20]


def test_japanese_has_kana_and_han(wide):
    kinds = ("HIRAGANA", "KATAKANA", "CJK UNIFIED")
    assert wide.ja.map(lambda w: any(name.startswith(kinds) for name in letters(w))).mean() > 0.98
    for kind in kinds:
        assert wide.ja.map(lambda w, kind=kind: any(name.startswith(kind) for name in letters(w))).sum() > 100


@pytest.mark.parametrize("language", LATIN)
def test_languages_of_latin_script_have_no_other(wide, language):
    latin = wide[language].map(
        lambda w: all(name.startswith(("LATIN", "FEMININE", "MASCULINE")) for name in letters(w))
    )
    assert latin.mean() > 0.99, wide[language][~latin].tolist()[:20]


def test_known_concepts_have_their_known_names(wide):
    known = {
        "emoji": "🐕",
        "de": "hund",
        "es": "perro",
        "fr": "chien",
        "zh": "狗",
        "ru": "собака",
        "ko": "개",
        "ja": "イヌ",
    }
    assert {language: wide.loc["dog", language].casefold() for language in known} == known


@settings(deadline=None, max_examples=5)
@given(st.lists(st.sampled_from([*LANGUAGES, "emoji"]), min_size=1, max_size=5, unique=True))
def test_a_choice_of_languages_is_the_same_rows_of_the_whole(tidy, languages):
    got = words(languages)
    assert got.language[: len(languages)].tolist() == languages
    key = ["concept", "language"]
    expected = tidy[tidy.language.isin(languages)]
    pd.testing.assert_frame_equal(got.sort_values(key, ignore_index=True), expected.sort_values(key, ignore_index=True))
    assert list(dict.fromkeys(got.concept)) == list(dict.fromkeys(tidy.concept))


def test_an_unknown_language_is_named_with_those_there_are():
    with pytest.raises(ValueError, match=r"languages has \['xx', 'EN'\]: there are ar, de, en, .*, zh, emoji"):
        words(["en", "xx", "EN"])
    with pytest.raises(ValueError, match="languages has nothing"):
        words([])
