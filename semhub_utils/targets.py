"""The words that a lens is asked about, as tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from semhub_utils.language_model import LanguageModel

Target = str | int


@dataclass(frozen=True)
class Targets:
    """The targets of one text: `ids` holds the first token of each spelling, -1 where there is one spelling only."""

    labels: list[str]
    ids: Int[Tensor, "targets 2"]
    tokens: list[str]
    shared: list[bool]
    whole: list[bool]


def read_targets(lm: LanguageModel, targets: dict[str, Target] | Sequence[dict[str, Target]], n: int) -> list[Targets]:
    """The targets of each of `n` texts.

    Raises:
        ValueError: for another number of dicts than texts, dicts of different size, an empty dict, or a target that
            is no token, each named.
    """
    if isinstance(targets, dict):
        return [_read(lm, targets)] * n
    if len(targets) != n:
        raise ValueError(
            f"there are {len(targets)} dicts of targets for {n} texts: give one dict a text, or one for all"
        )
    sizes = {len(one) for one in targets}
    if len(sizes) > 1:
        raise ValueError(f"the dicts of targets hold {sorted(sizes)} words: give every text the same number")
    return [_read(lm, one) for one in targets]


def _read(lm: LanguageModel, targets: dict[str, Target]) -> Targets:
    if not targets:
        raise ValueError("targets is empty: give at least one, such as {'en': ' dog'}")
    spellings = {label: _spellings(lm, label, target) for label, target in targets.items()}
    ids = {label: [first for first, _ in found] for label, found in spellings.items()}
    return Targets(
        labels=list(targets),
        ids=torch.tensor([([*found, -1])[:2] for found in ids.values()]),
        tokens=[" | ".join(lm.token_text(found)) for found in ids.values()],
        shared=[
            any(set(found) & set(others) for other, others in ids.items() if other != label)
            for label, found in ids.items()
        ],
        whole=[any(length == 1 for _, length in found) for found in spellings.values()],
    )


def _spellings(lm: LanguageModel, label: str, target: Target) -> list[tuple[int, int]]:
    """(first token, number of tokens) of the target with and without a leading space."""
    size = lm.model.config.get_text_config().vocab_size
    if isinstance(target, int) and not isinstance(target, bool):
        if not 0 <= target < size:
            raise ValueError(f"target {label!r} is token {target}: {lm.spec.name} has tokens 0 to {size - 1}")
        return [(target, 1)]
    word = target.strip() if isinstance(target, str) else ""
    if not word:
        raise ValueError(f"target {label!r} is {target!r}, which is no token: give a word or a token id")
    found: dict[int, int] = {}
    for spelling in (" " + word, word):
        tokens = lm.tokenizer(spelling, add_special_tokens=False).input_ids
        if spelling == word and len(tokens) > 1 and not lm.token_text(tokens[:1])[0].strip():
            tokens = tokens[1:]  # Llama 2 puts a blank token of its own before Chinese
        # Before Chinese, " " is often a token of its own, and says nothing of the word.
        if tokens and lm.token_text(tokens[:1])[0].strip() and tokens[0] != lm.tokenizer.unk_token_id:
            found.setdefault(tokens[0], len(tokens))
    if not found:
        raise ValueError(f"target {label!r} is {target!r}, which {lm.spec.name} has no token for: give another word")
    return list(found.items())
