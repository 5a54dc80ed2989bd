"""Hidden states of many texts, streamed in batches."""

import os
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from semhub_utils import parallel
from semhub_utils.hooks import State, Where, check_met, check_positions, watch
from semhub_utils.language_model import LanguageModel
from semhub_utils.soft_tokens import KINDS, NAMES, Text


def hidden_states(
    lm: LanguageModel,
    texts: Text | Sequence[Text],
    position: str | int | np.integer = "last",
    batch_size: int = 32,
    progress: bool = True,
) -> Float[Tensor, "texts rows d_model"]:
    """The residual stream of each text at one position, or averaged, after every block.

    Batches are made of texts of like length, the longest first, and each state is reduced as soon as it is
    computed: no logits, and memory for one batch and the result.

    Args:
        lm: the model.
        texts: one text or several.
        position: "last" token, "mean" over all but the first token (which is an attention sink, with a state unlike
            any other; a text of one token is its own mean), over the tokens of its "image" or "audio", or a number:
            real tokens from 0, or negative from the end.
        batch_size: texts in one forward pass.
        progress: show a bar on work that takes more than a few seconds.

    Returns:
        Shape (texts, n_layers + 1, d_model), float32 on the CPU, in the order of `texts`. Row 0 is the embedding,
        row k the output of block k, never normed.

    Raises:
        ValueError: for an empty text, a position that a text does not have, or a batch size below 1.
    """
    tokens = lm.token_ids(texts)
    where_to = _position(position)
    if isinstance(where_to, int):
        check_positions([where_to], [len(ids) for ids in tokens])
    elif where_to in NAMES:
        check_met([lm.kinds(ids).count(KINDS.index(where_to)) for ids in tokens], where_to)
    # It grows batch by batch, where it lies (realloc): the longest texts, which come first and take the most memory,
    # then do not have the states of all others beside them.
    result, order = np.empty((0, lm.n_layers + 1, lm.d_model), np.float32), []
    for rows in batches(tokens, batch_size, progress):
        kept = torch.full((len(rows), *result.shape[1:]), torch.nan)  # no row can be garbage

        def keep(layer: int, state: State, where: Where, kept: torch.Tensor = kept) -> None:
            kept[:, layer] = reduced(state, where, where_to).float()

        with watch(lm, None, keep):
            lm.run(lm.pad([tokens[row] for row in rows]))
        order += rows
        result.resize((len(order), *result.shape[1:]), refcheck=False)
        result[-len(rows) :] = kept.numpy()
    return torch.from_numpy(_to_places(result, order))


def _to_places(rows: np.ndarray, places: list[int]) -> np.ndarray:
    """Move row i to `places[i]`, for each i, without a second array."""
    places = list(places)
    for i in range(len(places)):
        while (j := places[i]) != i:
            rows[[i, j]] = rows[[j, i]]
            places[i], places[j] = places[j], places[i]
    return rows


def batches(tokens: Sequence[Sequence[int]], batch_size: int, progress: bool) -> Iterable[list[int]]:
    """Row numbers in batches of like length, the longest texts first, under a progress bar.

    Longest first, so that a batch that does not fit in memory fails at once, and the time that is left is never
    guessed too short.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size is {batch_size!r}: give 1 or more texts a batch")
    order = sorted(range(len(tokens)), key=lambda row: -len(tokens[row]))
    groups = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    # tqdm's own switch, which its notebook bar ignores: a bar in an executed book would stand in the page as a widget.
    if not progress or os.environ.get("TQDM_DISABLE") or not parallel.is_first():
        return groups
    return tqdm(groups, desc="texts", unit="batch", delay=3, leave=False)


def _position(position: str | int | np.integer) -> str | int:
    if position in ("last", "mean", *NAMES):
        return -1 if position == "last" else str(position)
    if isinstance(position, bool) or not isinstance(position, int | np.integer):
        raise ValueError(f"position is {position!r}: give 'last', 'mean', 'image', 'audio' or a number")
    return int(position)


def reduced(state: State, where: Where, position: str | int) -> Float[Tensor, "texts d_model"]:
    """One state a text: that of a position, or a mean, as `hidden_states` says."""
    if isinstance(position, int):
        return state[torch.arange(len(state), device=state.device), where.column(position).to(state.device)]
    if position in NAMES:
        kept = where.select(position)
    else:
        kept = (where.index > 0) | ((where.index == 0) & (where.lengths[:, None] == 1))
    weights = (kept / kept.sum(1, keepdim=True)).to(state.device, torch.float32)
    return torch.einsum("btd,bt->bd", state.float(), weights)
