"""Steering: a direction of meaning, added to the residual stream while the model runs.

The direction is what two sets of texts differ in (activation addition, Turner et al. 2023; the mean over many pairs
as in Rimsky et al. 2024), or two sets of words in the unembedding, as in Wu et al. (2024).
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from semhub_utils.hooks import Positions, State, Where, edit, watch
from semhub_utils.language_model import LanguageModel
from semhub_utils.soft_tokens import Example, Text
from semhub_utils.states import hidden_states
from semhub_utils.targets import read_targets


@dataclass(frozen=True, eq=False)
class SteeringVector:
    """A direction and the layer that it is for.

    `direction` (d_model,) is float32 on the CPU, as long as it was measured. `layer` is 0 for the embedding, k for
    the output of block k. `scale` is the norm that a state usually has there, which strengths are counted in.
    """

    direction: Float[Tensor, " d_model"]
    layer: int
    scale: float

    def __post_init__(self) -> None:
        if not torch.isfinite(self.direction).all():
            raise ValueError("the direction has values that are not finite: look at the states it was made from")
        if not self.direction.any():
            raise ValueError("the direction is zero, so it points nowhere: its two sides are the same to the model")
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"scale is {self.scale}: give the norm of the states at this layer, above 0")

    @property
    def unit(self) -> Float[Tensor, " d_model"]:
        """The direction with norm 1."""
        return self.direction / self.direction.norm()

    @property
    def hash(self) -> str:
        """16 hex digits over all that it is."""
        text = self.direction.numpy().tobytes() + f"{self.layer} {self.scale}".encode()
        return hashlib.sha256(text).hexdigest()[:16]


def steering_vector(
    lm: LanguageModel,
    positive: Sequence[Text],
    negative: Sequence[Text],
    layer: int | np.integer,
    method: str = "activation",
    position: str | int = "last",
) -> SteeringVector:
    """The direction from what `negative` means to what `positive` means.

    Args:
        lm: the model.
        positive: texts on the side that a positive strength pushes to.
        negative: texts on the other side. Pairs in the same frame ("a good day", "a bad day") let all that is not
            the difference cancel.
        layer: where it is read, and where it will be added: 0 for the embedding, k for the output of block k.
        method: "activation" takes the mean state of the positive texts minus that of the negative ones;
            "unembedding" the mean row of the unembedding over the first tokens of the positive words, with and
            without a space before them, minus that of the negative ones.
        position: where a text is read, as in `hidden_states`; "unembedding" does not ask.

    Returns:
        The vector; its `scale` is the median norm of the states of all the texts at `layer`, first tokens left out,
        since a first token is a sink with a norm far from all others.

    Raises:
        ValueError: for an unknown method, an empty side, texts of one token only, or two sides that are the same.
    """
    layer = lm.check_layer(layer)
    if method not in ("activation", "unembedding"):
        raise ValueError(f"method is {method!r}: give 'activation' (states) or 'unembedding' (rows of the head)")
    sides: list[list[Text]] = [
        [side] if isinstance(side, str | Example) else list(side) for side in (positive, negative)
    ]
    if not all(sides):
        raise ValueError("one side has no texts: give at least one positive and one negative text")
    norms: list[Tensor] = []

    def keep_norms(_: int, state: State, where: Where) -> None:
        norms.append(state.float().norm(dim=-1)[(where.index > 0).to(state.device)].cpu())

    with watch(lm, layer, keep_norms):
        states = hidden_states(lm, sides[0] + sides[1], position, progress=False)[:, layer]
    seen = torch.cat(norms)
    if not len(seen):
        raise ValueError(
            f"every text is a single token to {lm.spec.name}, a sink whose norm is unlike any other's: give texts of "
            f"two tokens or more, such as 'It is {sides[0][0]}'"
        )
    if method == "activation":
        up, down = states[: len(sides[0])].mean(0), states[len(sides[0]) :].mean(0)
    else:
        pictured = [one for side in sides for one in side if isinstance(one, Example)]
        if pictured:
            raise ValueError(f"{pictured[0]} has no row in the unembedding: give words, or method='activation'")
        up, down = (_mean_row(lm, [str(word) for word in side]) for side in sides)
    return SteeringVector(up - down, layer, float(seen.median()))


def _mean_row(lm: LanguageModel, words: list[str]) -> Float[Tensor, " d_model"]:
    ids = torch.cat([read_targets(lm, {word: word}, 1)[0].ids.flatten() for word in words])
    with torch.no_grad(), lm.unembedding() as (weight, _):
        return weight[ids[ids >= 0].to(weight.device)].float().mean(0).cpu()


def random_vector(vector: SteeringVector, seed: int = 0) -> SteeringVector:
    """The control of a vector: the same layer, scale and norm, in a direction drawn at random.

    Args:
        vector: what it is the control of.
        seed: the same seed and width give the same direction; any push of this size does some damage, so draw many.
    """
    drawn = torch.randn(len(vector.direction), generator=torch.Generator().manual_seed(seed))
    return replace(vector, direction=drawn / drawn.norm() * vector.direction.norm())


@contextmanager
def steer(
    lm: LanguageModel,
    vector: SteeringVector,
    strength: float,
    positions: Positions = "all",
    unit: str = "relative",
) -> Iterator[None]:
    """Add a vector to the residual stream in what runs inside the block: h + strength * scale * v / |v|.

    Args:
        lm: the model.
        vector: the direction; it knows its layer.
        strength: in units of `vector.scale`, the norm of a state there: 0.1 pushes by a tenth of a state. Negative
            pushes the other way; 0 changes nothing, bit for bit.
        positions: as in `edit`: "all" (what is generated too), "prompt", "last", or numbers.
        unit: "relative", or "absolute": then the push is as long as `strength` itself.

    Two vectors are added by one block within the other.

    Raises:
        ValueError: for a strength that is not finite, an unknown unit, or a vector of a model of another width.
    """
    with edit(lm, vector.layer, adding(push(lm, vector, strength, unit)), positions):
        yield


def adding(added: Float[Tensor, "*texts d_model"]) -> Callable[[State], State]:
    """The edit that adds the same to every position; in float32, whatever precision the model computes in."""
    return lambda state: state.float() + added.to(state.device)


def push(lm: LanguageModel, vector: SteeringVector, strength: float, unit: str = "relative") -> Float[Tensor, " d"]:
    """What `steer` adds to a state, (d_model,); errors as there."""
    if not math.isfinite(strength):
        raise ValueError(f"strength is {strength}: give a finite number, such as 0.08 of the residual norm")
    if unit not in ("relative", "absolute"):
        raise ValueError(f"unit is {unit!r}: give 'relative' (to the norm of a state there) or 'absolute'")
    if len(vector.direction) != lm.d_model:
        raise ValueError(
            f"the vector has {len(vector.direction)} dimensions and {lm.spec.name} has {lm.d_model}: make one with "
            f"steering_vector(...) from this model"
        )
    lm.check_layer(vector.layer)
    return vector.unit * (strength * (vector.scale if unit == "relative" else 1.0))
