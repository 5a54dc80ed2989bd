"""The expressions: as many as there are, right, and spelled as one writes them."""

import re

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semhub_utils import data
from semhub_utils.data import expressions, number, read_number, spelled
from semhub_utils.data.arithmetic import SPELLINGS

WORDS = [spelling for spelling in SPELLINGS if spelling != "digits"]
VALUES = st.integers(0, 99)
SPELLING = st.sampled_from(SPELLINGS)


@pytest.fixture(scope="module")
def table():
    return expressions()


def one(operation, a, b):
    return pd.DataFrame([(operation, a, b, a + b if operation == "plus" else a * b)], columns=["operation", *"abc"])


def test_there_are_846_sums_and_277_products(table):
    assert table["operation"].value_counts().to_dict() == {"plus": 846, "times": 277}
    assert sum(99 - b for b in range(1, 10)) == 846  # a from 1 to 99 - b
    assert sum(99 // b for b in range(1, 10)) == 277  # a from 1 to the last whole 99 / b
    assert list(table.columns) == ["operation", "a", "b", "c"]
    assert list(table.index) == list(range(1123))


def test_every_expression_is_right_once_and_within_bounds(table):
    plus = table["operation"] == "plus"
    assert (table["c"][plus] == table["a"][plus] + table["b"][plus]).all()
    assert (table["c"][~plus] == table["a"][~plus] * table["b"][~plus]).all()
    assert not table.duplicated(["operation", "a", "b"]).any()
    assert table["a"].min() == 1
    assert sorted(table["b"].unique()) == list(range(1, 10))
    assert table["c"].max() == 99
    assert plus[:846].all(), "the sums come first"


@pytest.mark.parametrize(
    ("spelling", "plus", "times", "question", "result_first"),
    [
        ("digits", "5+3", "5*3", "5+3=", "8=5+"),
        ("en", "five plus three", "five times three", "five plus three equals", "eight equals five plus"),
        ("es", "cinco más tres", "cinco por tres", "cinco más tres es igual a", "ocho es igual a cinco más"),
        ("fr", "cinq plus trois", "cinq fois trois", "cinq plus trois égale", "huit égale cinq plus"),
        ("de", "fünf plus drei", "fünf mal drei", "fünf plus drei gleich", "acht gleich fünf plus"),
        ("zh", "五加三", "五乘三", "五加三等于", "八等于五加"),
    ],
)
def test_one_expression_in_each_spelling(spelling, plus, times, question, result_first):
    assert spelled(one("plus", 5, 3), spelling) == [plus]
    assert spelled(one("times", 5, 3), spelling) == [times]
    assert spelled(one("plus", 5, 3), spelling, "question") == [question]
    assert spelled(one("plus", 5, 3), spelling, "result first") == [result_first]


@pytest.mark.parametrize(
    ("spelling", "known"),
    [
        ("digits", {0: "0", 7: "7", 99: "99"}),
        ("en", {0: "zero", 1: "one", 14: "fourteen", 21: "twenty-one", 40: "forty", 99: "ninety-nine"}),
        ("es", {1: "uno", 16: "dieciséis", 21: "veintiuno", 22: "veintidós", 31: "treinta y uno", 90: "noventa"}),
        ("fr", {1: "un", 21: "vingt et un", 71: "soixante et onze", 80: "quatre-vingts", 97: "quatre-vingt-dix-sept"}),
        ("de", {1: "eins", 17: "siebzehn", 21: "einundzwanzig", 30: "dreißig", 66: "sechsundsechzig"}),
        ("zh", {0: "零", 2: "二", 10: "十", 11: "十一", 20: "二十", 21: "二十一", 99: "九十九"}),
    ],
)
def test_known_numbers_have_their_known_names(spelling, known):
    assert {value: number(value, spelling) for value in known} == known


@given(VALUES)
def test_a_chinese_number_says_tens_and_ones(value):
    text = number(value, "zh")
    ones = "零一二三四五六七八九"
    if "十" not in text:
        assert ones.index(text) == value
        return
    tens, _, rest = text.partition("十")
    assert (ones.index(tens) if tens else 1) * 10 + (ones.index(rest) if rest else 0) == value
    assert tens != "一", "十一 and not 一十一"
    assert "零" not in text


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_two_numbers_are_written_alike(spelling):
    names = [number(value, spelling) for value in range(100)]
    assert len(set(names)) == 100
    assert all(name == name.strip() and "  " not in name for name in names)
    assert spelling == "digits" or not any(re.search("[0-9]", name) for name in names)


@given(SPELLING, st.sampled_from(["plus", "times"]), st.integers(1, 9), st.integers(1, 9))
def test_a_text_holds_its_numbers_in_their_order(spelling, operation, a, b):
    table = one(operation, a, b)
    c = int(table["c"].iloc[0])
    (text,), (question,), (first,) = (
        spelled(table, spelling, order) for order in ("expression", "question", "result first")
    )
    assert text.startswith(number(a, spelling))
    assert text.endswith(number(b, spelling)), "the last token is to be the last operand"
    assert question.startswith(text)
    assert first.startswith(number(c, spelling))
    assert not first.endswith(number(b, spelling))
    assert all(part == part.strip() for part in (text, question, first))


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_expression_has_a_text_of_its_own(table, spelling):
    for order in ("expression", "result first"):
        texts = spelled(table, spelling, order)
        assert len(set(texts)) == len(texts) == 1123
    assert len(set(spelled(table, spelling, "question"))) == 1123


def test_there_is_no_space_where_a_tokenizer_would_make_a_token_of_it(table):
    for spelling in ("digits", "zh"):
        assert not any(" " in text for text in spelled(table, spelling, "result first"))


def test_a_part_of_the_table_gives_the_texts_of_its_rows(table):
    some = table.sample(20, random_state=1)
    assert spelled(some, "de") == [spelled(table, "de")[i] for i in some.index]
    assert spelled(table.head(0), "de") == []


@given(VALUES, SPELLING, st.sampled_from(["", ".", ",", "\n", "\n7", "! 5"]), st.sampled_from(["", " ", "\n"]))
def test_what_is_written_is_read_back(value, spelling, after, before):
    assert read_number(before + number(value, spelling) + after, spelling) == value
    assert read_number(before + number(value, spelling).upper() + after, spelling) == value


@pytest.mark.parametrize(
    ("text", "spelling", "value"),
    [
        ("12", "digits", 12),
        ("123", "digits", None),
        ("1.5", "digits", None),
        ("1,000", "digits", None),
        ("5.", "digits", 5),
        ("-5", "digits", None),
        ("thirty-two and more", "en", 32),
        ("thirty", "en", 30),
        ("eighteenth", "en", None),
        ("seventy-", "en", None),
        ("treinta y dos.", "es", 32),
        ("treinta y", "es", 30),
        ("quatre-vingt-dix-sept", "fr", 97),
        ("vingt et un", "fr", 21),
        ("Einundzwanzig", "de", 21),
        ("eine", "de", None),
        ("二十一。", "zh", 21),
        ("八的", "zh", 8),
        ("二百", "zh", None),
        ("三万", "zh", None),
        ("8", "en", None),
        ("eight", "digits", None),
        ("", "en", None),
        ("about 8", "digits", None),
    ],
)
def test_the_longest_number_counts_and_no_part_of_one(text, spelling, value):
    assert read_number(text, spelling) == value


def test_what_is_unknown_is_named_with_what_there_is(table):
    for call in (lambda: number(1, "it"), lambda: spelled(table, "it"), lambda: read_number("uno", "it")):
        with pytest.raises(ValueError, match="spelling is 'it': give one of digits, en, es, fr, de, zh"):
            call()
    with pytest.raises(ValueError, match="order is 'backwards': give one of 'expression', 'question', 'result first'"):
        spelled(table, "en", "backwards")
    with pytest.raises(ValueError, match="operation has 'minus': give 'plus' or 'times'"):
        spelled(table.assign(operation="minus"), "en")


@pytest.mark.parametrize("value", [-1, 100, True])
def test_a_number_outside_0_to_99_is_refused(value):
    with pytest.raises(ValueError, match=rf"value is {value}: give a whole number from 0 to 99"):
        number(value, "en")


def test_the_functions_are_public():
    assert {"expressions", "number", "read_number", "spelled"} <= set(data.__all__)
