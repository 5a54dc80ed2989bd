"""The book's data, one module a data type."""

from semhub_utils.data.sentences import bare, flores, sentences
from semhub_utils.data.words import words

__all__ = ["bare", "flores", "sentences", "words"]
