"""Openings that end in `range(`, and the arguments that a continuation writes."""

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semhub_utils import data
from semhub_utils.data import openings, range_arguments

# Arguments with brackets, commas and strings of their own.
ARGUMENTS = st.sampled_from(
    [
        "n",
        "10",
        "-1",
        "len(words)",
        "max(a, b)",
        "x[i, j]",
        "ord(')')",
        "f((1, 2), [3])",
        "{'a': ')'}['a']",
        "2 * (n + 1)",
    ]
)


def test_there_are_twenty_to_choose_on_and_forty_to_judge():
    choose, judge = openings("choose"), openings("judge")
    assert (len(choose), len(judge)) == (20, 40)
    assert openings() == choose + judge
    assert len(set(openings())) == 60


@pytest.mark.parametrize("text", openings())
def test_an_opening_waits_for_arguments_and_is_python_with_them(text):
    assert text.endswith("range(")
    assert text.count("range(") == 1
    brackets = {"(": ")", "[": "]", "{": "}"}
    still_open = []
    for character in text + "3)":
        if character in brackets:
            still_open.append(brackets[character])
        elif still_open and character == still_open[-1]:
            still_open.pop()
    body = "" if still_open or "return" in text.splitlines()[-1] else ": pass"
    if text.splitlines()[-1].lstrip().startswith("for "):
        body = ": pass"
    ast.parse(text + "3)" + "".join(reversed(still_open)) + body)


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="split is 'test': give 'choose', 'judge', or None for both"):
        openings("test")


@given(
    st.lists(ARGUMENTS, min_size=1, max_size=3), st.sampled_from([":\n    print(i)", ")]\n", "", " + (1, 2)", "):\r\n"])
)
def test_what_is_written_is_read_back(arguments, after):
    assert range_arguments(", ".join(arguments) + ")" + after) == [ast.unparse(ast.parse(a)) for a in arguments]


@given(st.text(alphabet="n1(),[]'\"\\d:= \n", max_size=25))
def test_any_text_is_read_as_python_reads_it_or_not_at_all(text):
    found = range_arguments(text)
    if found is not None:
        assert ")" in text
        assert range_arguments(", ".join(found) + ")") == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("n):", ["n"]),
        ("1, n):", ["1", "n"]),
        ("start, end):", ["start", "end"]),
        ("0, n, 2):", ["0", "n", "2"]),
        ("len(a, b)):", ["len(a, b)"]),  # a comma of another call is no second argument
        ("1, n", None),
        ("1, n:", None),
        ("1,, n)", None),
        ("start=1, n)", None),
        ("stop=n)", None),
        (")", []),
        ("", None),
        ("start_row_index: end_row_index):", None),
        ("len(words", None),
        ("len(words):", None),
    ],
)
def test_a_start_is_an_argument_of_range_itself(text, found):
    assert range_arguments(text) == found


def test_a_strange_string_warns_nobody(recwarn):
    assert range_arguments("len('\\d'))") == ["len('\\\\d')"]
    assert not recwarn


def test_the_functions_are_public():
    assert {"openings", "range_arguments"} <= set(data.__all__)
