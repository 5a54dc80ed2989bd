"""The prompts of steering: parallel and neutral; verdicts that no first token confuses; controls without any."""

import re
import unicodedata

import pytest
import torch

import semhub_utils as sh
from semhub_utils import data
from semhub_utils.data import contrasts, pairs, prompts, verdicts
from semhub_utils.data.prompts import LANGUAGES
from semhub_utils.measures import word_ids

SCRIPTS = {"zh": "CJK", "hi": "DEVANAGARI"}
ARTICLES = {"a", "an", "the"}
# An opening that already holds one of these would lean, in English; the other columns say the same.
LEANING = {"too", "only", "barely", "unfortunately", "luckily", "fortunately", "sadly", "hardly", "not", "never"}


@pytest.fixture(scope="module")
def table():
    return prompts(LANGUAGES)


def words_of(text):
    return re.findall(r"[^\W\d_]+", text.casefold())


def wholly_in_script(text, language):
    letters = [c for c in text if unicodedata.category(c)[0] in "LM"]
    return len(letters) > 0 and all(
        unicodedata.name(c).startswith(SCRIPTS.get(language, ("LATIN", "COMBINING"))) for c in letters
    )


def verdict_and_pair_words():
    """English words that carry the sentiment: the verdicts, and those in which the two sides of a pair differ."""
    good, bad = verdicts("en")
    differ = [set(words_of(one)) ^ set(words_of(other)) for one, other in pairs("en")]
    return (set(good) | set(bad)).union(*differ) - ARTICLES


def test_there_are_60_rows_complete_in_six_languages(table):
    assert list(table.columns) == ["topic", "split", *LANGUAGES]
    assert LANGUAGES == ("en", "es", "zh", "fr", "de", "hi")
    assert len(table) == 60
    assert table.index.name == "id"
    assert table.index.is_unique
    assert table.notna().all(axis=None)
    assert (table != "").all(axis=None)


def test_one_row_in_three_is_to_choose_on_and_topics_are_on_both_sides(table):
    assert (table["split"] == "choose").tolist() == [i % 3 == 0 for i in range(60)]
    chosen, judged = prompts(["es"], "choose"), prompts(["es"], "judge")
    assert (len(chosen), len(judged)) == (20, 40)
    assert set(chosen.index) | set(judged.index) == set(table.index)
    assert set(chosen.topic) == set(judged.topic) == set(table.topic)
    assert chosen.topic.value_counts().min() >= 3


@pytest.mark.parametrize("language", LANGUAGES)
def test_openings_end_in_a_letter_have_no_stray_space_and_stand_once(table, language):
    assert table[language].str.casefold().is_unique
    for text in table[language]:
        assert text == " ".join(text.split())
        assert text == unicodedata.normalize("NFC", text)
        assert unicodedata.category(text[-1])[0] in "LM", text
        assert wholly_in_script(text, language), text
        assert 4 <= len(text.split()) <= 9 or (language == "zh" and 6 <= len(text) <= 14), text


def test_chinese_is_simplified_and_ends_before_an_adjective(table):
    for text in table.zh:
        text.encode("gb2312", errors="strict")
        assert re.search("(真|很|挺|非常|特别|相当)$", text), text
    assert table.hi.str.contains("(?:बहुत|काफ़ी|बेहद)$").all()


def test_openings_are_not_one_template(table):
    """No beginning of two words, and no ending of two, is that of more than one row in four."""
    for language in set(LANGUAGES) - {"zh"}:
        split = table[language].str.split()
        assert split.str[:2].str.join(" ").value_counts().max() <= 15
        assert split.str[-2:].str.join(" ").value_counts().max() <= 15


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_opening_has_no_verdict_in_it(table, language):
    verdict = {word.casefold() for side in verdicts(language) for word in side} | LEANING
    for text in table[language]:
        if language == "zh":
            assert not [word for word in verdict if word in text], text
        else:
            assert not verdict & set(words_of(text)), text


@pytest.mark.parametrize("language", LANGUAGES)
def test_verdicts_are_single_words_each_on_one_side(language):
    good, bad = verdicts(language)
    for side in (good, bad):
        assert 12 <= len(side) <= 20
        assert len(set(side)) == len(side)
        assert all(word == unicodedata.normalize("NFC", word) for word in side)
        assert all(wholly_in_script(word, language) for word in side)
    assert not {word.casefold() for word in good} & {word.casefold() for word in bad}


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_first_token_of_the_embedded_model_is_on_both_sides(language, embedded_lm):
    """With a space before the word and without; and `word_ids`, which reads both together, takes the lists."""
    good, bad = verdicts(language)
    for space in (" ", "") if language != "zh" else ("",):
        first = [
            {embedded_lm.tokenizer(space + word, add_special_tokens=False).input_ids[0] for word in side}
            for side in (good, bad)
        ]
        assert not first[0] & first[1]
    assert (word_ids(embedded_lm, [(good, bad)]) >= 0).sum() >= 24


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_embedded_model_expects_a_verdict_after_every_opening(table, language, embedded_lm):
    """The verdicts' first tokens get a fifth of the probability on average; nearly all of it is the good ones'."""
    states = sh.hidden_states(embedded_lm, table[language].tolist(), batch_size=60, progress=False)[:, -1]
    with torch.no_grad():
        p = embedded_lm.head(embedded_lm.final_norm(states)).float().softmax(-1)
    good, bad = (p[:, ids[ids >= 0]].sum(1) for ids in word_ids(embedded_lm, [verdicts(language)])[0])
    assert (good + bad).min() > 0.03
    assert 0.18 < (good + bad).mean() < 0.4
    assert (good > bad).float().mean() > 0.9


@pytest.mark.parametrize("language", LANGUAGES)
def test_pairs_are_parallel_and_short(language):
    found = pairs(language)
    assert len(found) == len(pairs("en")) == 16
    texts = [text for pair in found for text in pair]
    assert len(set(texts)) == 32
    for text in texts:
        assert text == " ".join(unicodedata.normalize("NFC", text).split())
        assert wholly_in_script(text, language), text
        assert len(text) <= 35
    assert [len(one.split()) > 1 for one, _ in pairs("en")] == [len(other.split()) > 1 for _, other in pairs("en")]
    lengths = [len(one) - len(other) for one, other in found]
    assert abs(sum(lengths)) / len(lengths) <= 3, "one side is longer than the other throughout"


def test_pairs_come_in_the_order_of_the_file_good_first():
    assert pairs("en")[0] == ("good", "bad")
    assert pairs("hi")[0] == ("अच्छा", "बुरा")
    assert pairs("de")[6] == ("Ich liebe es", "Ich hasse es")
    assert pairs("es")[-1] == ("Recomiendo este lugar", "Desaconsejo este lugar")


def test_there_are_20_contrasts_of_12_pairs_with_no_text_twice():
    found = contrasts()
    assert len(found) == 20
    for name, texts in found.items():
        assert len(texts) == 12, name
        every = [text for pair in texts for text in pair]
        assert len(set(every)) == 24, name
        assert all(text == text.strip() and text.isascii() for text in every)


def test_no_contrast_has_a_verdict_or_a_word_in_which_a_pair_differs():
    forbidden = verdict_and_pair_words()
    assert {"good", "hate", "joy", "terrible", "failure"} <= forbidden
    for name, texts in contrasts().items():
        for text in (text for pair in texts for text in pair):
            assert not forbidden & set(words_of(text)), (name, text)


def test_languages_come_in_the_order_asked_for(table):
    some = data.prompts(["hi", "es"])
    assert list(some.columns) == ["topic", "split", "hi", "es"]
    assert some.hi.equals(table.hi)
    assert list(prompts().columns) == ["topic", "split", "es", "zh", "fr", "de", "hi"]


def test_what_is_not_there_is_named_with_what_is():
    those = "there are en, es, zh, fr, de, hi"
    for call in (verdicts, pairs, lambda language: prompts([language])):
        with pytest.raises(ValueError, match=f"language is 'it': {those}"):
            call("it")
    with pytest.raises(ValueError, match="split is 'test': give 'choose', 'judge', or None for both"):
        prompts(split="test")
    with pytest.raises(ValueError, match=r"languages is \['es', 'es'\]: name each once"):
        prompts(["es", "es"])
    for languages in ("es", []):
        with pytest.raises(ValueError, match=r"give a list out of en, es, zh, fr, de, hi"):
            prompts(languages)
