"""How sure a number is: intervals by bootstrap, a layer picked on other items than those it is judged on, and Holm.

Items are what a chapter draws at random: concepts, sentences, programs. Everything here resamples items and never
layers, so that two layers, or two languages, are always compared on the same items.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


def draw_weights(n: int, times: int = 2000, seed: int = 0) -> Int[np.ndarray, "times n"]:
    """How often each of `n` items is drawn in each of `times` bootstrap samples (Efron and Tibshirani 1993).

    Raises:
        ValueError: for fewer than two items, or no samples.
    """
    if n < 2:
        raise ValueError(f"n is {n}: an interval needs at least two items")
    if times < 1:
        raise ValueError(f"times is {times}: draw at least one sample (2,000 give a steady 95% interval)")
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=times)


def bootstrap(values: Float[np.ndarray, "items *rest"], times: int = 2000, seed: int = 0) -> np.ndarray:
    """The mean over items in bootstrap samples of the items.

    Args:
        values: one row an item; whatever follows (layers, languages) is resampled with it.
        times: how many samples.
        seed: the same seed and number of items draw the same samples, so that differences can be taken draw by draw.

    Returns:
        Shape (times, ...).

    Raises:
        ValueError: for fewer than two items, a value that is not finite, or no samples.
    """
    values = np.asarray(values, dtype=float)
    _check_finite(values)
    return np.tensordot(draw_weights(len(values), times, seed), values, axes=1) / len(values)


def interval(draws: np.ndarray, level: float = 0.95) -> tuple[np.ndarray | np.floating, np.ndarray | np.floating]:
    """The range that holds the middle `level` of the draws: its lower and upper ends, over the first axis.

    Of a share that is 0 or 1 in the sample every draw is the same, and the range has no width: then 3 / items, the rule
    of three, is a better bound.

    Raises:
        ValueError: for a level outside 0 to 1, or a draw that is not finite.
    """
    _check_finite(draws)
    if not 0 < level < 1:
        raise ValueError(f"level is {level}: give a share between 0 and 1, such as 0.95")
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


@dataclass(frozen=True)
class Picked:
    """What `pick_and_judge` found.

    `layers` is the layer that each half picked, `layer_of` the layer at which each item is judged (the other half's
    pick), and `score` each item's score there.
    """

    layers: tuple[int, int]
    layer_of: Int[np.ndarray, " items"]
    score: Float[np.ndarray, " items"]


def pick_and_judge(
    scores: Float[np.ndarray, "items layers"],
    candidates: Sequence[int],
    half: Int[np.ndarray, " items"] | None = None,
    seed: int = 0,
) -> Picked:
    """Let each half of the items pick a layer, and judge the other half there.

    The layer with the highest mean over a half is partly the luckiest one. On the other half that luck is gone, so
    the mean of `score` is no overestimate: no item has a say in the layer at which it is judged. (As long as an item's
    score is its own. Scores that share a mean or a baseline, as those of `item_scores` do, depend on one another by
    about one part in the number of items.)

    Args:
        scores: each item's score at each layer; the columns are layers 0 to n_layers.
        candidates: the layers that may be picked.
        half: 0 or 1 for each item; by default a random half of them.
        seed: of that random half.

    Raises:
        ValueError: for a candidate that is no layer, no candidates, or a half without items.
    """
    scores = np.asarray(scores, dtype=float)
    if scores.ndim != 2:
        raise ValueError(f"scores has the shape {scores.shape}: give a table of items by layers")
    _check_finite(scores)
    if not all(isinstance(layer, int | np.integer) for layer in candidates):
        raise ValueError(f"candidates is {list(candidates)}: give layers as whole numbers")
    wrong = [layer for layer in candidates if not 0 <= layer < scores.shape[1]]
    if wrong or not len(candidates):
        raise ValueError(f"candidates has {wrong or 'nothing'}: give layers between 0 and {scores.shape[1] - 1}")
    if half is None:
        half = np.random.default_rng(seed).permutation(len(scores)) % 2
    half = np.asarray(half, dtype=int)
    if half.shape != scores.shape[:1] or set(np.unique(half)) != {0, 1}:
        raise ValueError(f"half must hold 0 or 1 for each of the {len(scores)} items, and both must occur")
    best = [int(candidates[int(scores[half == h][:, list(candidates)].mean(0).argmax())]) for h in (0, 1)]
    layer_of = np.array(best)[1 - half]
    return Picked((best[0], best[1]), layer_of, scores[np.arange(len(scores)), layer_of])


def flip_signs(
    scores: Float[np.ndarray, "items layers"], times: int = 1000, seed: int = 0
) -> Float[np.ndarray, " times"]:
    """What the mean of a paired difference would be, at its best layer, if no side were the better one.

    Each item's differences change their sign at random, at all layers together (a sign-flip test, Fisher 1935); the
    highest mean over the layers is kept, which pays for looking at many (a max-statistic). The 95% quantile of the
    draws is the null that a mean has to exceed.

    Args:
        scores: each item's difference at each layer, such as true minus swapped.
        times: how many draws.
        seed: of the signs.

    Raises:
        ValueError: for fewer than two items, a value that is not finite, or no draws.
    """
    scores = np.asarray(scores, dtype=float)
    if scores.ndim != 2 or len(scores) < 2:
        raise ValueError(f"scores has the shape {scores.shape}: give a table of two or more items by layers")
    if times < 1:
        raise ValueError(f"times is {times}: draw at least one (1,000 give a steady 95% quantile)")
    _check_finite(scores)
    signs = np.random.default_rng(seed).integers(0, 2, size=(times, len(scores))) * 2 - 1
    return (signs @ scores / len(scores)).max(1)


def holm(p: Sequence[float]) -> Float[np.ndarray, " tests"]:
    """P-values corrected for the number of tests, so that all of those below 0.05 are right in 95 of 100 families.

    Holm (1979): the smallest of m is multiplied by m, the next by m - 1, and so on, and none may end below a smaller
    one's.

    Raises:
        ValueError: for a value outside 0 to 1.
    """
    values = np.asarray(p, dtype=float)
    if values.ndim != 1:
        raise ValueError(f"p has the shape {values.shape}: give one list of all the p-values of a family")
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"p has {values[~((values >= 0) & (values <= 1))].tolist()}: p-values lie between 0 and 1")
    order = np.argsort(values)
    steps = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(steps, 1)
    return corrected


def _check_finite(values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise ValueError(f"{int((~np.isfinite(values)).sum())} of {values.size} values are not finite: leave those out")
