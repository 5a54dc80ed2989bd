"""One expression in six spellings: `5+3`, and "five plus three" in the words of five languages (五加三 in Chinese).

The expressions are those of Wu et al. (2024): a + b and a * b with b from 1 to 9, a from 1, and a result below 100. The
words of English, Spanish, French and German come from the package `num2words`, the Chinese ones from the rule below.
"""

import re
from collections.abc import Sequence
from functools import cache

import pandas as pd
from num2words import num2words

# "digits", and the languages whose words there are.
SPELLINGS = ("digits", "en", "es", "fr", "de", "zh")
# What stands between the numbers: for plus, for times, for equals.
_SIGNS = {
    "digits": ("+", "*", "="),
    "en": ("plus", "times", "equals"),
    "es": ("más", "por", "es igual a"),
    "fr": ("plus", "fois", "égale"),
    "de": ("plus", "mal", "gleich"),
    "zh": ("加", "乘", "等于"),
}
# Written without spaces. In digits too: with them many tokenizers make a token of the space before a digit.
_UNSPACED = ("digits", "zh")
_HAN = "零一二三四五六七八九"
_OPERATIONS = ("plus", "times")
_ORDERS = ("expression", "question", "result first")


def expressions() -> pd.DataFrame:
    """The 846 sums and 277 products with a last operand from 1 to 9 and a result below 100.

    Returns:
        A frame of 1,123 rows with the columns `operation` ("plus" or "times"), `a`, `b` and `c`, the result; sums
        first, in the order of a and b.
    """
    both = [("plus", a, b, a + b) for a in range(1, 99) for b in range(1, 10) if a + b < 100] + [
        ("times", a, b, a * b) for a in range(1, 100) for b in range(1, 10) if a * b < 100
    ]
    return pd.DataFrame(both, columns=["operation", "a", "b", "c"])


def number(value: int, spelling: str) -> str:
    """A number from 0 to 99 in one spelling: `number(21, "de")` is "einundzwanzig".

    Raises:
        ValueError: for an unknown spelling, or a number outside 0 to 99.
    """
    _check_spelling(spelling)
    if isinstance(value, bool) or not 0 <= value <= 99:
        raise ValueError(f"value is {value!r}: give a whole number from 0 to 99")
    return _names(spelling)[value]


def spelled(table: pd.DataFrame, spelling: str, order: str = "expression") -> list[str]:
    """Each expression of a table as a text.

    Args:
        table: rows with `operation`, `a`, `b` and `c`, as `expressions` returns them.
        spelling: one of `SPELLINGS`.
        order: "expression" for `5+3`, "question" for `5+3=`, and "result first" for `8=5+`, which leaves the last
            operand to say. In words "five plus three", "five plus three equals" and "eight equals five plus".

    Returns:
        One text a row, without a space at its ends.

    Raises:
        ValueError: for an unknown spelling, order or operation, or a number outside 0 to 99.
    """
    _check_spelling(spelling)
    if order not in _ORDERS:
        raise ValueError(f"order is {order!r}: give one of {', '.join(map(repr, _ORDERS))}")
    if unknown := sorted(set(table["operation"]) - set(_OPERATIONS)):
        raise ValueError(f"operation has {', '.join(map(repr, unknown))}: give 'plus' or 'times'")
    plus, times, equals = _SIGNS[spelling]
    space = "" if spelling in _UNSPACED else " "
    texts = []
    for operation, *values in zip(*(table[name] for name in ("operation", "a", "b", "c")), strict=True):
        a, b, c = (number(int(value), spelling) for value in values)
        sign = plus if operation == "plus" else times
        parts = {"expression": [a, sign, b], "question": [a, sign, b, equals], "result first": [c, equals, a, sign]}
        texts.append(space.join(parts[order]))
    return texts


def read_number(text: str, spelling: str) -> int | None:
    """The number from 0 to 99 with which a text begins, or None: what a model's answer says.

    The longest name counts, so that "treinta y dos." is 32 and not 30, and `12` is 12 and not 1; what goes on after it,
    as `123`, `1.5` and "eighteenth" do, is none of these
    numbers. A number in another spelling is None.

    Raises:
        ValueError: for an unknown spelling.
    """
    _check_spelling(spelling)
    found = _pattern(spelling).match(text.strip().casefold())
    return None if found is None else _values(spelling)[found[1]]


@cache
def _names(spelling: str) -> list[str]:
    if spelling == "digits":
        return [str(value) for value in range(100)]
    if spelling == "zh":
        return [_chinese(value) for value in range(100)]
    return [str(num2words(value, lang=spelling)) for value in range(100)]


@cache
def _values(spelling: str) -> dict[str, int]:
    return {name.casefold(): value for value, name in enumerate(_names(spelling))}


@cache
def _pattern(spelling: str) -> re.Pattern[str]:
    names: Sequence[str] = sorted(_values(spelling), key=len, reverse=True)
    # Han characters are letters to `\w`, and a Chinese number is followed by other words without a space.
    after = rf"[{_HAN}十百千万亿点]" if spelling == "zh" else r"[\w-]|[.,]\d"
    return re.compile(rf"({'|'.join(map(re.escape, names))})(?!{after})")


def _chinese(value: int) -> str:
    """Tens, 十, and ones: 十 alone is 10, 二十一 is 21."""
    tens, ones = divmod(value, 10)
    if not tens:
        return _HAN[ones]
    return (_HAN[tens] if tens > 1 else "") + "十" + (_HAN[ones] if ones else "")


def _check_spelling(spelling: str) -> None:
    if spelling not in SPELLINGS:
        raise ValueError(f"spelling is {spelling!r}: give one of {', '.join(SPELLINGS)}")
