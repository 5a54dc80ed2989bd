"""The thin module under The Semantic Hub: load a model, read its residual stream, change it, keep what was found."""

from semhub_utils import data, dominance, grow, picture_lens, results, stitched, theme, world
from semhub_utils.explore import Explorer, explore
from semhub_utils.hardware import chosen, models
from semhub_utils.hooks import edit, record
from semhub_utils.language_model import LanguageModel
from semhub_utils.lens import lens_logits, logit_lens, top_tokens
from semhub_utils.loading import load
from semhub_utils.measures import identify, log_loss, log_odds, relevance, sentiment
from semhub_utils.registry import REGISTRY, ModelSpec
from semhub_utils.resampling import bootstrap, flip_signs, holm, interval, pick_and_judge
from semhub_utils.results import say
from semhub_utils.similarity import item_scores, nearest, pair_scores, similarity
from semhub_utils.soft_tokens import Example
from semhub_utils.states import hidden_states
from semhub_utils.steering import SteeringVector, random_vector, steer, steering_vector
from semhub_utils.sweep import sweep
from semhub_utils.vocabulary import language_mass

__version__ = "0.1.0"

__all__ = [
    "REGISTRY",
    "Example",
    "Explorer",
    "LanguageModel",
    "ModelSpec",
    "SteeringVector",
    "bootstrap",
    "chosen",
    "data",
    "dominance",
    "edit",
    "explore",
    "flip_signs",
    "grow",
    "hidden_states",
    "holm",
    "identify",
    "interval",
    "item_scores",
    "language_mass",
    "lens_logits",
    "load",
    "log_loss",
    "log_odds",
    "logit_lens",
    "models",
    "nearest",
    "pair_scores",
    "pick_and_judge",
    "picture_lens",
    "random_vector",
    "record",
    "relevance",
    "results",
    "say",
    "sentiment",
    "similarity",
    "steer",
    "steering_vector",
    "stitched",
    "sweep",
    "theme",
    "top_tokens",
    "world",
]
