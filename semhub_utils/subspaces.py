"""Subspaces of the residual stream: what several forms share, what is their own, and a control of equal variance.

A subspace is given by directions, orthonormal rows (k, d_model). States of several forms of the same items, such as
sentences in several languages, have two kinds of covariance over the items once each form's mean is taken off:

    shared    mean over pairs of different forms a, b of cov(a, b): what goes along with the item in every form
    within    mean over forms a of cov(a, a): the same and all that varies in one form alone

Noise that two forms do not have in common cancels in the first, which makes its trace an unbiased account.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from semhub_utils.hooks import State

Forms = Float[Tensor, "forms items d_model"]
Directions = Float[Tensor, "k d_model"]
Covariance = Float[Tensor, "d_model d_model"]


def covariances(states: Forms) -> tuple[Covariance, Covariance]:
    """The shared covariance of several forms of the same items, and the covariance within a form: see the module.

    Raises:
        ValueError: for fewer than two forms or two items.
    """
    if states.dim() != 3 or min(states.shape[:2]) < 2:
        raise ValueError(f"states is {tuple(states.shape)}: give two or more forms of two or more items")
    centred = states.double() - states.double().mean(1, keepdim=True)
    forms, items, _ = states.shape
    within = torch.einsum("fid,fie->de", centred, centred)
    total = centred.sum(0)
    return (total.T @ total - within) / (forms * (forms - 1) * items), within / (forms * items)


def main_directions(covariance: Covariance, k: int) -> Directions:
    """The `k` directions with the most variance, the first one first, float32.

    Raises:
        ValueError: for a `k` that is not between 1 and the width.
    """
    _check_k(k, len(covariance))
    return torch.linalg.eigh(covariance.double()).eigenvectors.flip(1)[:, :k].T.float().contiguous()


def share(directions: Directions, covariance: Covariance) -> float:
    """Which part of the variance lies in the subspace."""
    v = directions.double()
    return float(((v @ covariance.double()) * v).sum() / covariance.double().trace())


def random_directions(
    covariance: Covariance, k: int, wanted: float | None = None, seed: int = 0, tolerance: float = 1e-3
) -> Directions:
    """`k` random directions that hold a wanted share of the variance.

    Directions drawn alike in all of the space hold little of a variance that a few directions make up, so that to
    remove them is to remove less. Here the draw is stretched along the directions of variance, by its power a, and a
    is set so that the share is the wanted one: with a = 0 all directions are alike, and with a large one only the
    `k` main directions remain.

    Args:
        covariance: of the states, (d_model, d_model).
        k: how many directions.
        wanted: the share of the variance that they hold; None draws all directions alike (a = 0).
        seed: of the draw.
        tolerance: how far the share may be off.

    Returns:
        Orthonormal rows, float32.

    Raises:
        ValueError: for a share that no `k` directions of this draw have.
    """
    _check_k(k, len(covariance))
    variance, axes = torch.linalg.eigh(covariance.double())
    variance = variance.clamp(min=0) / variance.max()
    drawn = torch.randn(len(covariance), k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    def at(power: float) -> Directions:
        stretched = variance.clamp(min=1e-12)[:, None] ** power * drawn
        return (axes @ torch.linalg.qr(stretched).Q).T.float().contiguous()

    if wanted is None:
        return at(0.0)
    low, high = -4.0, 8.0
    if not share(at(low), covariance) - tolerance <= wanted <= share(at(high), covariance) + tolerance:
        raise ValueError(
            f"wanted is {wanted:.3f}: of {k} directions drawn at random the share lies between "
            f"{share(at(low), covariance):.3f} and {share(at(high), covariance):.3f}"
        )
    for _ in range(60):
        power = (low + high) / 2
        found = at(power)
        if abs(share(found, covariance) - wanted) < tolerance:
            break
        low, high = (power, high) if share(found, covariance) < wanted else (low, power)
    return found


def removing(
    directions: Directions, mean: Float[Tensor, " d_model"], spread: Float[Tensor, " d_model"]
) -> Callable[[State], State]:
    """The edit that sets the part of a state in a subspace to that of the mean (mean ablation), for `edit`.

    Args:
        directions: of the standardised states, (state - mean) / spread.
        mean: of the states.
        spread: the standard deviation of each of their numbers; ones where the directions are of plain states.
    """

    def remove(state: State) -> State:
        v, centre, unit = (part.to(state.device) for part in (directions, mean, spread))
        return state.float() - (state.float() - centre) / unit @ v.T @ v * unit

    return remove


def parts(
    vector: Float[Tensor, " d_model"], directions: Directions
) -> tuple[Float[Tensor, " d_model"], Float[Tensor, " d_model"]]:
    """A vector as the sum of its part inside a subspace and its part outside."""
    inside = vector @ directions.T @ directions
    return inside, vector - inside


def _check_k(k: int, width: int) -> None:
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= width:
        raise ValueError(f"k is {k!r}: give 1 to {width} directions")
