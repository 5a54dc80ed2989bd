"""The parallel sentences: complete, each in its own script, no two alike, and the plain ones without a shared token."""

import itertools
import re
import unicodedata

import huggingface_hub
import pandas as pd
import pytest
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

from semhub_utils import data
from semhub_utils.data import bare, flores, sentences
from semhub_utils.data.sentences import FORMS, LANGUAGES

# The first word of the Unicode name of a letter or vowel sign.
SCRIPTS = {"zh": {"CJK"}, "ru": {"CYRILLIC"}, "ar": {"ARABIC"}, "hi": {"DEVANAGARI"}}
SCRIPTS["ja"] = {"HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "CJK"}
ENDS = {
    "zh": "。？！”",
    "ja": "。？！」",
    "ar": ".؟!»",
    "hi": "।?!”",
    "fr": ".?!»",
    "de": ".?!“",
    "es": ".?!»",
    "ru": ".?!»",
}
# Characters for each one in English: a translation that is cut off, or of another row, falls outside. By looking.
RATIOS = dict(en=(1, 1), es=(0.4, 1.9), fr=(0.55, 1.9), de=(0.6, 2.0), zh=(0.15, 0.6), ja=(0.22, 1.1), ru=(0.4, 1.7))
RATIOS |= dict(ar=(0.35, 1.7), hi=(0.5, 1.8), sw=(0.4, 1.9))
DAYS = {"Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"}


@pytest.fixture(scope="module")
def table():
    return sentences()


@pytest.fixture(scope="module")
def plain():
    return sentences(plain=True)


def letters(text):
    return [c for c in text if unicodedata.category(c)[0] in "LM"]


def scripts(text):
    return [unicodedata.name(c).split()[0] for c in letters(text)]


def content_words(text):
    return {word for word in re.findall(r"[a-z']+", text.casefold()) if len(word) > 3}


def test_there_are_at_least_240_rows_complete_in_ten_languages(table):
    assert list(table.columns) == ["topic", "form", "plain", *LANGUAGES]
    assert len(LANGUAGES) == len(set(LANGUAGES)) == 10
    assert len(table) >= 240
    assert table.index.name == "id"
    assert table.index.is_unique
    assert table.notna().all(axis=None)
    assert (table[["topic", *LANGUAGES]] != "").all(axis=None)


def test_every_form_is_there_in_numbers_and_no_other(table):
    assert set(table.form) == set(FORMS)
    assert table.form.value_counts().min() >= 15
    assert table.topic.value_counts().min() >= 10
    assert (table.form == "quotation").equals(table.en.str.contains("“"))
    assert table[table.form == "question"].en.str.endswith("?").all()


@pytest.mark.parametrize("language", LANGUAGES)
def test_text_is_in_one_normal_form_without_stray_spaces(table, language):
    for text in table[language]:
        assert text == unicodedata.normalize("NFC", text)
        assert text == " ".join(text.split()), text


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_sentence_stands_twice(table, language):
    again = table[language].map(bare).str.casefold()
    assert again.is_unique, again[again.duplicated(keep=False)].tolist()


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_sentence_is_written_in_the_script_of_its_language(table, language):
    own = SCRIPTS.get(language, {"LATIN"})
    for text in table[language]:
        assert set(scripts(text)) <= own, text
        assert len(letters(text)) >= 3, text


def test_chinese_is_simplified_japanese_has_kana_and_arabic_and_russian_their_own_letters(table):
    for text in table.zh:
        text.encode("gb2312", errors="strict")
    assert table.ja.map(lambda text: any(script.endswith("GANA") for script in scripts(text))).all()
    assert not table.ar.str.contains("[کیگچپژ]").any()
    assert not table.ru.str.contains("[іїєґў]", case=False).any()


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_sentence_ends_as_its_language_ends_one(table, language):
    ends = ENDS.get(language, ".?!”")
    assert table[language].map(lambda text: text[-1] in ends).all()
    if language == "es":
        assert (table.es.str.count(r"\?") == table.es.str.count("¿")).all()
        assert (table.es.str.count("!") == table.es.str.count("¡")).all()
    if language == "fr":
        assert not table.fr.str.contains(r"[^ ][?!:;»]").any()
    if language in ("ar", "hi", "zh", "ja"):
        assert not table[language].str.contains(r"[.]$" if language != "ar" else r"\?").any()


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_length_of_a_sentence_is_in_proportion_to_the_english_one(table, language):
    low, high = RATIOS[language]
    ratio = table[language].str.len() / table.en.str.len()
    assert ratio.between(low, high).all(), table[~ratio.between(low, high)][["en", language]].to_numpy().tolist()


def test_no_two_sentences_are_nearly_the_same(table):
    """In English at most half of the words of four letters and more that two rows have are in both (Jaccard)."""
    words = table.en.map(content_words)
    for (one, x), (other, y) in itertools.combinations(words.items(), 2):
        assert not x or not y or len(x & y) / len(x | y) <= 0.5, (table.en[one], table.en[other])


def test_at_least_100_rows_are_plain_and_they_have_no_digit(plain):
    assert len(plain) >= 100
    for language in LANGUAGES:
        assert not plain[language].str.contains(r"\d").any()


def test_a_plain_row_has_no_name_in_it(plain):
    """In English a name shows as a capital inside the sentence; so do "I" and the days of the week, which are none."""
    for text in plain.en:
        inside = {word.rstrip("s.?!").partition("'")[0] for word in text.split()[1:] if word[0].isupper()}
        assert inside <= {"I"} | DAYS, text


@pytest.mark.parametrize("as_read", [str, bare], ids=["whole", "bare"])
def test_no_two_languages_of_a_plain_row_share_a_token_of_the_embedded_model(plain, embedded_lm, as_read):
    """All 45 pairs; letter case and spaces aside, and tokens without a letter or digit aside."""
    tokenizer = embedded_lm.tokenizer

    def tokens(text):
        ids = tokenizer(as_read(text), add_special_tokens=False).input_ids
        plainly = {t.replace("▁", " ").strip().casefold() for t in tokenizer.convert_ids_to_tokens(ids)}
        return {t for t in plainly if any(c.isalnum() for c in t)}

    shared = []
    for row, texts in plain[list(LANGUAGES)].iterrows():
        found = {language: tokens(text) for language, text in texts.items()}
        assert all(found.values())
        pairs = itertools.combinations(LANGUAGES, 2)
        shared += [(row, x, y, found[x] & found[y]) for x, y in pairs if found[x] & found[y]]
    assert shared == []


def test_plain_rows_and_the_others_are_all_rows(table, plain):
    other = sentences(plain=False)
    assert table.plain.dtype == bool
    assert plain.plain.all()
    assert not other.plain.any()
    assert sorted([*plain.index, *other.index]) == sorted(table.index)
    pd.testing.assert_frame_equal(table[table.plain], plain)


def test_languages_come_in_the_order_asked_for(table):
    some = data.sentences(["sw", "en"])
    assert list(some.columns) == ["topic", "form", "plain", "sw", "en"]
    pd.testing.assert_frame_equal(some, table[list(some.columns)])


@pytest.mark.parametrize("call", [sentences, flores])
def test_a_language_that_is_not_there_is_named_with_those_that_are(call):
    those = "give a list out of en, es, fr, de, zh, ja, ru, ar, hi, sw"
    for languages, named in ((["en", "xx", "EN"], r"\['xx', 'EN'\]"), ([], "nothing"), ("en", r"\['e', 'n'\]")):
        with pytest.raises(ValueError, match=f"languages has {named}: {those}"):
            call(languages)


BARE = {
    "Who opened it?": "Who opened it",
    "Stop!": "Stop",
    "Wait…": "Wait",
    "Wait...": "Wait",
    "¿Quién fue?": "Quién fue",
    "¡Para!": "Para",
    "« Oui ! »": "Oui",
    "«\u00a0Oui\u202f!\u00a0»": "Oui",
    "„Ja.“": "Ja",
    "»Ja!«": "Ja",
    "「はい。」": "はい",
    "『はい！』": "はい",
    "“走吧！”": "走吧",
    "谁？": "谁",
    "من فتح هذه؟": "من فتح هذه",
    "किसने खोली।": "किसने खोली",
    '"Go."': "Go",
    "“Go,” she said.": "Go,” she said",
    "It's 7.30, isn't it?": "It's 7.30, isn't it",
    "dog": "dog",
    "...": "",
}


@pytest.mark.parametrize("text", BARE)
def test_bare_takes_the_punctuation_off_both_ends_and_nothing_within(text):
    assert bare(text) == BARE[text]
    assert bare(bare(text)) == bare(text)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_bare_sentence_begins_and_ends_with_a_letter_or_digit(table, language):
    for text in table[language]:
        inner = bare(text)
        assert unicodedata.category(inner[0])[0] in "LN", text
        assert unicodedata.category(inner[-1])[0] in "LMN", text
        assert inner in text
        assert letters(inner) == letters(text)


CODES = {"en": "eng_Latn", "fr": "fra_Latn", "zh": "cmn_Hans", "sw": "swh_Latn"}


@pytest.fixture
def copy(tmp_path):
    """A small folder like that of FLORES+, whose rows are in another order in each language."""
    for number, (language, code) in enumerate(CODES.items()):
        for split, rows in (("dev", [1, 2, 3]), ("devtest", [1, 2])):
            rows = rows[number % 2 :] + rows[: number % 2]
            frame = pd.DataFrame(
                {"id": rows, "text": [f" {language} {row} of {split}\n" for row in rows], "topic": "x"}
            )
            (tmp_path / split).mkdir(exist_ok=True)
            frame.to_parquet(tmp_path / split / f"{code}.parquet")
    return tmp_path


def test_flores_is_read_from_a_folder_and_aligned_by_id(copy):
    for folder in (copy, str(copy)):
        frame = flores(["sw", "en", "zh"], folder=folder)
        assert frame.index.name == "id"
        assert list(frame.columns) == ["sw", "en", "zh"]
        assert sorted(frame.index) == [1, 2, 3]
        assert frame.loc[2].tolist() == ["sw 2 of dev", "en 2 of dev", "zh 2 of dev"]
    assert flores(["fr", "en"], "devtest", copy).loc[1].tolist() == ["fr 1 of devtest", "en 1 of devtest"]


def test_a_folder_that_lacks_a_file_or_a_row_is_refused(copy):
    with pytest.raises(FileNotFoundError, match=r"dev/deu_Latn.parquet is not there: download openlanguagedata/flores"):
        flores(["en", "de"], folder=copy)
    path = copy / "dev" / "fra_Latn.parquet"
    pd.read_parquet(path).iloc[:2].to_parquet(path)
    with pytest.raises(ValueError, match=r"FLORES\+ dev has other sentences in one of en, fr: the copy is not whole"):
        flores(["en", "fr"], folder=copy)


def test_a_split_that_is_not_there_is_named(copy):
    with pytest.raises(ValueError, match=r"split is 'test': FLORES\+ has 'dev' and 'devtest'"):
        flores(["en"], "test", copy)


def test_flores_is_had_from_the_hub_by_its_names_there(copy, monkeypatch):
    asked = []

    def download(repo, name, repo_type):
        asked.append((repo, name, repo_type))
        return str(copy / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert len(flores(["en", "zh"], "devtest")) == 2
    names = ["devtest/eng_Latn.parquet", "devtest/cmn_Hans.parquet"]
    assert asked == [("openlanguagedata/flores_plus", name, "dataset") for name in names]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (GatedRepoError, r"flores_plus asks for a login: accept its conditions on its page and run `hf auth login`"),
        (LocalEntryNotFoundError, r"hub \(LocalEntryNotFoundError\): check the network, or give `folder` with a copy"),
        (RepositoryNotFoundError, r"cannot be had from the hub \(RepositoryNotFoundError\)"),
        (OSError, r"cannot be had from the hub \(OSError\): check the network.*own `sentences\(\)` need neither"),
    ],
)
def test_a_hub_that_gives_nothing_says_what_to_do(monkeypatch, kind, message):
    error = kind.__new__(kind)  # what its maker wants to know differs between versions of the hub's package

    def fail(*names, **more):
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(RuntimeError, match=message) as caught:
        flores(["en"])
    assert caught.value.__cause__ is error
