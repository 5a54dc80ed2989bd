"""The thin module under The Semantic Hub: load a model, read its residual stream, change it, keep what was found."""

from semhub_utils import results, theme
from semhub_utils.hooks import edit, record
from semhub_utils.language_model import LanguageModel, ModelSpec
from semhub_utils.lens import logit_lens, top_tokens
from semhub_utils.models import REGISTRY, load
from semhub_utils.results import say
from semhub_utils.states import hidden_states

__version__ = "0.1.0"

__all__ = [
    "REGISTRY",
    "LanguageModel",
    "ModelSpec",
    "edit",
    "hidden_states",
    "load",
    "logit_lens",
    "record",
    "results",
    "say",
    "theme",
    "top_tokens",
]
