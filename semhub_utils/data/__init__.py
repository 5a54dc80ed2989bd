"""The book's data, one module a data type."""

from semhub_utils.data.arithmetic import expressions, number, read_number, spelled
from semhub_utils.data.sentences import bare, flores, sentences
from semhub_utils.data.words import words

__all__ = ["bare", "expressions", "flores", "number", "read_number", "sentences", "spelled", "words"]
