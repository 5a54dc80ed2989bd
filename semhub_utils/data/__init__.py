"""The book's data, one module a data type."""

from semhub_utils.data.arithmetic import expressions, number, read_number, spelled
from semhub_utils.data.cogs import cogs
from semhub_utils.data.images import pictures, scene, square, things
from semhub_utils.data.logical_forms import crossed, logical_forms
from semhub_utils.data.openings import openings, range_arguments
from semhub_utils.data.places import calls, commas, operators, tokens_at, without_docstrings
from semhub_utils.data.programs import humaneval, mbpp
from semhub_utils.data.prompts import contrasts, pairs, prompts, verdicts
from semhub_utils.data.sentences import bare, flores, sentences
from semhub_utils.data.sound_files import open_sound
from semhub_utils.data.sounds import animals, recordings, speak
from semhub_utils.data.words import words

__all__ = [
    "animals",
    "bare",
    "calls",
    "cogs",
    "commas",
    "contrasts",
    "crossed",
    "expressions",
    "flores",
    "humaneval",
    "logical_forms",
    "mbpp",
    "number",
    "open_sound",
    "openings",
    "operators",
    "pairs",
    "pictures",
    "prompts",
    "range_arguments",
    "read_number",
    "recordings",
    "scene",
    "sentences",
    "speak",
    "spelled",
    "square",
    "things",
    "tokens_at",
    "verdicts",
    "without_docstrings",
    "words",
]
