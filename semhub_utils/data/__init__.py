"""The book's data, one module a data type."""

from semhub_utils.data.words import words

__all__ = ["words"]
