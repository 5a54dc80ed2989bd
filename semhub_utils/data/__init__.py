"""The book's data, one module a data type."""

from semhub_utils.data.places import calls, commas, operators, tokens_at, without_docstrings
from semhub_utils.data.programs import humaneval, mbpp
from semhub_utils.data.sentences import bare, flores, sentences
from semhub_utils.data.words import words

__all__ = [
    "bare",
    "calls",
    "commas",
    "flores",
    "humaneval",
    "mbpp",
    "operators",
    "sentences",
    "tokens_at",
    "without_docstrings",
    "words",
]
