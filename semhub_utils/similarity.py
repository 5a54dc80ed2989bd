"""How near the states of two forms of the same things lie, against what chance and a crowded space would give.

Row i of `a` and row i of `b` are one item in two forms. With S[i, j] the cosine of a[i] and b[j] at one layer:

    matched     mean of S[i, i]
    baseline    mean of S[i, j] over all i != j
    adjusted    matched - baseline                       (Wu et al. 2024, Eq. 1)
    centred     the same difference after the mean over items is subtracted from each form
    retrieval   share of the i whose largest centred S[i, j] is at j = i (retrieval@1)

Raw cosines are high between any two states when the space is anisotropic (Ethayarajh 2019); `baseline` shows by how
much, and the centred measures are free of it.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from semhub_utils.resampling import draw_weights, interval

MEASURES = ("matched", "baseline", "adjusted", "centred", "retrieval")

States = Float[Tensor, "items layers d_model"]
# Of another form, of which there may be more or fewer.
Others = Float[Tensor, "others layers d_model"]


def similarity(a: States, b: States, samples: int = 2000, shuffles: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Every measure at every layer, with an interval and a null.

    The interval is a bootstrap over items; the mean that centring subtracts and the candidates for retrieval stay those
    of all items. Memory grows with the square of the number of items: about 0.4 GB for 3,000. The null deals the
    partners out at random `shuffles` times, takes the measure at every layer and keeps the highest (a max-statistic),
    which pays for looking at many layers. It compares layers as they are: where they differ in how crowded they are, as
    raw cosines do, the null of "matched" and "adjusted" is that of the layer which varies most, and is too strict for
    the others.

    Args:
        a: states of one form, as `hidden_states` returns them.
        b: states of the other form, the same items in the same order.
        samples: bootstrap samples of the items.
        shuffles: random pairings for the null.
        seed: of both.

    Returns:
        A tidy frame with a row for each layer and measure: `layer`, `measure` (see the module), `value`, `low` and
        `high` (its 95% interval), `null_high` (the 95% quantile of the null) and `p` (the share of shuffles that
        reach the value at any layer, the true pairing counted with them). "baseline" is the same under every
        shuffle but for the pairs left out, so it has no null (NaN).

    Raises:
        ValueError: for two shapes that differ, fewer than two items, a state of zeros or one that is not finite, or no
            samples or shuffles.
    """
    _check_pair(a, b)
    if samples < 1 or shuffles < 1:
        raise ValueError(f"samples is {samples} and shuffles {shuffles}: draw one of each or more (2,000 and 1,000 do)")
    n = len(a)
    # The first "sample" draws every item once: its measures are the values.
    weights = torch.cat([torch.ones(1, n), torch.from_numpy(draw_weights(n, samples, seed))]).double()
    rng = np.random.default_rng(seed + 1)
    shuffled = torch.from_numpy(np.stack([rng.permutation(n) for _ in range(shuffles)]))
    rows, nulls = [], {measure: torch.full((shuffles,), -torch.inf).double() for measure in MEASURES}
    for layer, (raw, centred) in enumerate(_layers(a, b)):
        draws = _measures(raw, centred, weights)
        for measure, null in _under_shuffles(raw, centred, shuffled).items():
            nulls[measure] = torch.maximum(nulls[measure], null)
        # A sample that drew one item only, which happens with very few items, has no other pairs.
        usable = draws["baseline"].isfinite()
        if not usable[1:].any():
            raise ValueError(f"{n} items are too few for an interval from {samples} samples: give more of either")
        for measure, values in draws.items():
            low, high = interval(values[1:][usable[1:]].numpy())
            rows.append((layer, measure, values[0].item(), float(low), float(high)))
    frame = pd.DataFrame(rows, columns=["layer", "measure", "value", "low", "high"])
    null_high = {m: np.quantile(null, 0.95) if m != "baseline" else np.nan for m, null in nulls.items()}
    frame["null_high"] = frame["measure"].map(null_high)
    frame["p"] = [
        np.nan if m == "baseline" else (1 + int((nulls[m] >= v - 1e-12).sum())) / (1 + shuffles)
        for m, v in zip(frame["measure"], frame["value"], strict=True)
    ]
    return frame


def item_scores(a: States, b: States, measure: str = "retrieval") -> Float[np.ndarray, "items layers"]:
    """Each item's part in a measure at each layer: their mean over items is the measure.

    For "adjusted" and "centred" it is the item's matched cosine minus twice the mean of the others in its row and
    column plus the mean of all others: each other pair belongs to two items, so that this is how far an item moves the
    measure, and a bootstrap over items has the right width. For "retrieval" 1 or 0; for "matched" the cosine. It is
    what `pick_and_judge` and `bootstrap` take.

    Raises:
        ValueError: as `similarity` does, and for a measure that has no items of its own.
    """
    if measure not in MEASURES or measure == "baseline":
        raise ValueError(f"measure is {measure!r}: give one of {', '.join(m for m in MEASURES if m != 'baseline')}")
    _check_pair(a, b)
    n, columns = len(a), []
    for layer in range(a.shape[1]):
        cosine = _cosines(a, b, layer, centre=measure in ("centred", "retrieval"))
        own = cosine.diagonal()
        if measure == "matched":
            columns.append(own)
        elif measure == "retrieval":
            columns.append(_hits(cosine).double())
        else:
            others = ((cosine.sum(0) + cosine.sum(1)) / 2 - own) / (n - 1)
            columns.append(own - 2 * others + others.mean())
    return torch.stack(columns, 1).numpy()


def shuffled(a: States, b: States, times: int = 200, seed: int = 0) -> Float[np.ndarray, "times layers"]:
    """The measure "centred" with the partners dealt out at random, at each layer: its null.

    The same seed and number of items deal the same way, so that a mean over several pairs of forms has as its null the
    mean of theirs, deal by deal.

    Raises:
        ValueError: as `similarity` does, and for no deals.
    """
    _check_pair(a, b)
    if times < 1:
        raise ValueError(f"times is {times}: deal at least once (200 give a steady 95% quantile)")
    rng = np.random.default_rng(seed)
    deals = torch.from_numpy(np.stack([rng.permutation(len(a)) for _ in range(times)]))
    cosines = (_cosines(a, b, layer, centre=True) for layer in range(a.shape[1]))
    return torch.stack([_under_shuffles(c, c, deals)["centred"] for c in cosines], 1).numpy()


def pair_scores(
    a: States, b: Others, pairs: Bool[np.ndarray, "*kinds items others"], centre: bool = True
) -> Float[np.ndarray, "*kinds items layers"]:
    """Each item's mean cosine, at each layer, with those items of the other form that `pairs` marks.

    For baselines that are harder than all other pairs, such as the same result in another sum, or a logical form with
    its names swapped: the difference of two calls is free of what both kinds of pairs share.

    Args:
        a: states of one form, as `hidden_states` returns them.
        b: states of the other form; there may be more or fewer of them than of the first.
        pairs: for each item of `a` (row) which items of `b` (columns) count; or several such tables, stacked.
        centre: subtract the mean over its items from each form first; False gives raw cosines.

    Returns:
        (items of a, layers) for each table, float64; NaN for an item without a marked pair.

    Raises:
        ValueError: for states that `similarity` would refuse, and for `pairs` of another shape.
    """
    _check_states(a, b)
    if pairs.shape[-2:] != (len(a), len(b)):
        raise ValueError(f"pairs is {pairs.shape}: give a row for each of {len(a)} items and a column for {len(b)}")
    weights = torch.from_numpy(pairs).double()
    count = weights.sum(-1)
    columns = [(_cosines(a, b, layer, centre) * weights).sum(-1) / count for layer in range(a.shape[1])]
    return torch.stack(columns, -1).numpy()


def nearest(a: States, b: States) -> np.ndarray:
    """For each item of `a` and layer, the row of `b` whose centred state is nearest by the cosine: (items, layers).

    Of equally near rows it is any one; "retrieval" counts a tie as a miss.
    """
    _check_pair(a, b)
    return torch.stack([_cosines(a, b, layer, centre=True).argmax(1) for layer in range(a.shape[1])], 1).numpy()


def _check_pair(a: Tensor, b: Tensor) -> None:
    """Refuse states that do not pair up, with what is wrong with them."""
    _check_states(a, b)
    if a.shape != b.shape:
        raise ValueError(
            f"a is {tuple(a.shape)} and b is {tuple(b.shape)}: give two arrays of items by layers by dimensions, "
            "the same items in the same order"
        )
    if len(a) < 2:
        raise ValueError(f"there are {len(a)} items: a baseline of other pairs needs at least two")


def _check_states(a: Tensor, b: Tensor) -> None:
    """Refuse what is no two arrays of states of one model, and a state that has no direction."""
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        raise TypeError(f"a is a {type(a).__name__} and b a {type(b).__name__}: give tensors, as from `hidden_states`")
    if not a.dim() == b.dim() == 3 or a.shape[1:] != b.shape[1:]:
        raise ValueError(
            f"a is {tuple(a.shape)} and b is {tuple(b.shape)}: give two arrays of items by layers by dimensions, "
            "of the same layers and dimensions"
        )
    for name, states in (("a", a), ("b", b)):
        if not torch.isfinite(states).all():
            row = int((~torch.isfinite(states)).flatten(1).any(1).nonzero()[0])
            raise ValueError(f"{name} has a state that is not finite, the first in item {row}")
        if (states == 0).all(-1).any():
            row = int((states == 0).all(-1).any(1).nonzero()[0])
            raise ValueError(f"{name} has a state of zeros, the first in item {row}: it has no direction")


def _layers(a: States, b: States) -> Iterator[tuple[Tensor, Tensor]]:
    """The raw and the centred cosines of all pairs, layer by layer."""
    for layer in range(a.shape[1]):
        yield _cosines(a, b, layer, centre=False), _cosines(a, b, layer, centre=True)


def _cosines(a: States, b: Others, layer: int, centre: bool) -> Float[Tensor, "items others"]:
    """The cosines of all pairs at one layer, float64, on the CPU."""
    x, y = (states[:, layer].detach().to("cpu", torch.float64) for states in (a, b))
    if centre:
        x, y = x - x.mean(0), y - y.mean(0)
    # A state equal to the mean has no direction after centring: cosine 0 with everything.
    return torch.nn.functional.normalize(x, dim=-1) @ torch.nn.functional.normalize(y, dim=-1).T


def _hits(cosine: Float[Tensor, "items items"]) -> Tensor:
    """Whether the partner is nearer than every other; a tie is no hit, so that equal states cannot score."""
    others = cosine.clone().fill_diagonal_(-torch.inf)
    # The cosines of equal states differ in the last bit: a product of matrices rounds each column its own way.
    return cosine.diagonal() > others.max(1).values + 1e-12


def _measures(raw: Tensor, centred: Tensor, weights: Float[Tensor, "samples items"]) -> dict[str, Tensor]:
    """Every measure in each bootstrap sample, given as how often each item was drawn.

    An item that was drawn twice pairs with its own copy as a match, never as a non-matching pair.
    """
    n = raw.shape[0]

    def parts(cosine: Tensor) -> tuple[Tensor, Tensor]:
        own = cosine.diagonal()
        all_pairs = torch.einsum("si,ij,sj->s", weights, cosine, weights)
        same = weights.square()
        return weights @ own / n, (all_pairs - same @ own) / (n**2 - same.sum(1))

    matched, baseline = parts(raw)
    centred_matched, centred_baseline = parts(centred)
    return {
        "matched": matched,
        "baseline": baseline,
        "adjusted": matched - baseline,
        "centred": centred_matched - centred_baseline,
        "retrieval": weights @ _hits(centred).double() / n,
    }


def _under_shuffles(raw: Tensor, centred: Tensor, shuffled: Tensor) -> dict[str, Tensor]:
    """Every measure but the baseline under each random pairing."""
    n = raw.shape[0]
    rows = torch.arange(n)

    def parts(cosine: Tensor) -> tuple[Tensor, Tensor]:
        matched = cosine[rows, shuffled].mean(1)
        return matched, matched - (cosine.sum() - n * matched) / (n * (n - 1))

    matched, adjusted = parts(raw)
    best = centred.max(1)
    single = (centred >= best.values[:, None] - 1e-12).sum(1) == 1
    retrieval = ((shuffled == best.indices) & single).double().mean(1)
    return {"matched": matched, "adjusted": adjusted, "centred": parts(centred)[1], "retrieval": retrieval}
