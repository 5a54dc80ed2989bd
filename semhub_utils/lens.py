"""The logit lens: what each state of the residual stream says when it is read through the unembedding.

    lens(h) = log_softmax(unembed(final_norm(h)))

(nostalgebraist 2020; Wu et al. 2024, Eq. 2). With `norm="final"`, the usual form, every row is normed. With
`norm="none"` rows 0 to n_layers - 1 are read as they are and only the last row is normed, as in the code released
with the paper. In both the last row is the model's own prediction.
"""

from collections.abc import Iterator, Sequence

import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from semhub_utils.hooks import Positions, State, Where, check_met, check_positions, position_list, watch
from semhub_utils.language_model import LanguageModel
from semhub_utils.soft_tokens import KINDS, NAMES, Text
from semhub_utils.states import batches
from semhub_utils.targets import Targets, read_targets

# Logits held at one time, as (state, token) pairs. On a CPU 8 MiB in float32, which stay in its cache between the three
# times that they are read: 64 MiB take a third longer. A GPU would wait for many small pieces.
_PAIRS, _PAIRS_GPU = 2**21, 2**24


def logit_lens(
    lm: LanguageModel,
    texts: Text | Sequence[Text],
    targets: dict[str, str | int] | Sequence[dict[str, str | int]],
    positions: Positions = "last",
    norm: str = "final",
    batch_size: int = 32,
    progress: bool = True,
) -> pd.DataFrame:
    """How likely chosen words are as the next token, at every layer.

    A word is scored on its first token, with and without a leading space: the two probabilities are summed, as by
    Wendler et al. (2024), and the better of the two ranks is taken. Nothing of the size of the vocabulary is kept.

    Args:
        lm: the model.
        texts: one text or several.
        targets: label to word, such as {"en": " dog", "zh": "狗"}, for all texts, or a list with one dict a text.
            A word may be a token id, which is then scored alone.
        positions: "last", "all", "image" or "audio" (the tokens of the picture or the sound), "text" (the others), a
            number or a list of numbers: real tokens from 0, or negative from the end.
        norm: "final" or "none", see above.
        batch_size: texts in one forward pass.
        progress: show a bar on work that takes more than a few seconds.

    Returns:
        A frame with a row for each text, position, layer and target: `text` (its index), `position`, `layer` (0 to
        n_layers), `target` (its label), `token` (what was scored, as text), `logprob` (natural logarithm), `rank`
        (0 is the top token), `shared` (another target of that text has the same first token) and `whole` (the
        word is one token).

    Raises:
        ValueError: for an empty text, a target without a token, a position out of range, an unknown norm.
    """
    check_norm(norm)
    tokens = lm.token_ids(texts)
    wanted = read_targets(lm, targets, len(tokens))
    places = positions_of(lm, positions, tokens)
    frames = []
    for rows in batches(tokens, batch_size, progress):
        # (layers, states, d_model): the chosen positions of the batch, text by text.
        states = chosen_states(lm, [tokens[row] for row in rows], [places[row] for row in rows], norm)
        owner = [row for row in rows for _ in places[row]]
        logprob, rank = _score(lm, states, torch.stack([wanted[row].ids for row in owner]).to(states.device))
        frames.append(_tidy(wanted, owner, [p for row in rows for p in places[row]], logprob, rank))
    frame = pd.concat(frames).sort_values(["text", "position", "layer"], kind="stable", ignore_index=True)
    frame.attrs["norm"] = norm
    return frame


def top_tokens(
    lm: LanguageModel,
    text: Text,
    k: int = 5,
    positions: Positions = "last",
    norm: str = "final",
) -> pd.DataFrame:
    """The k likeliest next tokens at every layer: what the lens shows of one text.

    Args:
        lm: the model.
        text: one text.
        k: how many tokens.
        positions: "last", "all", a number or a list of numbers.
        norm: "final" or "none", see the module.

    Returns:
        A frame with the columns `layer` (0 to n_layers), `position`, `token` (its text), `rank` (0 is the top) and
        `prob`.

    Raises:
        ValueError: for an empty text, a `k` below 1, a position out of range, an unknown norm.
    """
    check_norm(norm)
    if isinstance(k, bool) or not isinstance(k, int) or not k >= 1:
        raise ValueError(f"k is {k!r}: give 1 or more tokens")
    tokens = lm.token_ids([text])
    places = positions_of(lm, positions, tokens)
    states = chosen_states(lm, tokens, places, norm)
    flat = states.flatten(0, 1)
    best = torch.empty(len(flat), 0, device=flat.device)
    ids = torch.empty(len(flat), 0, dtype=torch.long, device=flat.device)
    total = torch.full((len(flat),), -torch.inf, device=flat.device)
    for start, logits in _logits(lm, flat):
        total = total.logaddexp(logits.logsumexp(1))
        found = logits.topk(min(k, logits.shape[1]))
        best, order = torch.cat([best, found.values], 1).topk(min(k, best.shape[1] + found.values.shape[1]))
        ids = torch.cat([ids, found.indices + start], 1).gather(1, order)
    prob = (best - total[:, None]).exp().cpu()
    layers, count = states.shape[:2]
    return pd.DataFrame(
        {
            "layer": torch.arange(layers).repeat_interleave(count * ids.shape[1]),
            "position": torch.tensor(places[0]).repeat_interleave(ids.shape[1]).repeat(layers),
            "token": lm.token_text(ids.flatten()),
            "rank": torch.arange(ids.shape[1]).repeat(layers * count),
            "prob": prob.flatten(),
        }
    )


def lens_logits(
    lm: LanguageModel,
    states: Float[Tensor, "texts layers d_model"],
    ids: Int[Tensor, "*texts targets spellings"],
    norm: str = "final",
) -> Float[Tensor, "texts layers targets"]:
    """The lens before its softmax, for a few tokens: its differences are differences of log-probability.

    For words that are compared with one another at many places: the softmax over the vocabulary, which cancels in
    the difference, costs a thousand times more than a few rows of the unembedding.

    Args:
        lm: the model.
        states: what `hidden_states` returns, all layers of it.
        ids: the tokens of each target, whose probabilities are summed, the same for every text or (texts, targets,
            spellings); -1 where there is none. `read_targets(...)[0].ids` has those of words.
        norm: "final" or "none", see the module.

    Returns:
        On the CPU, float32.

    Raises:
        ValueError: for states that lack layers, an id that the model does not have, or an unknown norm.
    """
    check_norm(norm)
    if states.shape[1] != lm.n_layers + 1:
        raise ValueError(f"states have {states.shape[1]} layers: give all {lm.n_layers + 1}, since the last is normed")
    size = lm.model.config.get_text_config().vocab_size
    if ids.min() < -1 or ids.max() >= size:
        raise ValueError(f"ids has {ids.min()} to {ids.max()}: {lm.spec.name} has tokens 0 to {size - 1}, -1 is none")
    ids = ids.expand(len(states), -1, -1).to(lm.head_device)
    h = states.to(lm.head_device, lm.head.weight.dtype)
    with torch.no_grad():
        normed = lm.final_norm(h).to(lm.head_device)
    if norm == "none":
        normed = torch.cat([h[:, :-1], normed[:, -1:]], 1)
    wanted = ids[:, None].expand(-1, states.shape[1], -1, -1).flatten(0, 1)
    logit = chosen_logits(lm, normed.flatten(0, 1), wanted.flatten(1)).view(wanted.shape)
    return logit.masked_fill(wanted < 0, -torch.inf).logsumexp(-1).unflatten(0, states.shape[:2]).cpu()


def check_norm(norm: str) -> None:
    """Refuse a norm that the lens does not have."""
    if norm not in ("final", "none"):
        raise ValueError(f"norm is {norm!r}: give 'final' (the usual lens) or 'none' (as in the paper's code)")


def positions_of(lm: LanguageModel, positions: Positions, tokens: list[list[int]]) -> list[list[int]]:
    """The chosen positions of each text, counted from 0, each once."""
    lengths = [len(ids) for ids in tokens]
    if isinstance(positions, str) and positions == "all":
        return [list(range(length)) for length in lengths]
    if isinstance(positions, str) and positions in KINDS:
        wanted = KINDS.index(positions)
        kinds = [lm.kinds(ids) for ids in tokens]
        if positions in NAMES:
            check_met([one.count(wanted) for one in kinds], positions)
        return [[place for place, kind in enumerate(one) if kind == wanted] for one in kinds]
    chosen = position_list(positions)
    check_positions(chosen, lengths)
    return [list(dict.fromkeys(p % length for p in chosen)) for length in lengths]


def chosen_states(
    lm: LanguageModel, tokens: list[list[int]], places: list[list[int]], norm: str
) -> Float[Tensor, "layers states d_model"]:
    """The chosen states of a batch, ready for the head."""
    kept: dict[int, Float[Tensor, "states d_model"]] = {}
    columns: list[Int[Tensor, " positions"]] = []

    def keep(layer: int, state: State, where: Where) -> None:
        if not columns:  # with "all", the texts have different numbers of positions
            for index, at in zip(where.index, places, strict=True):
                columns.append((index == torch.tensor(at, device=index.device)[:, None]).int().argmax(-1))
        kept[layer] = torch.cat([state[i, chosen.to(state.device)] for i, chosen in enumerate(columns)])

    with watch(lm, None, keep):
        lm.run(lm.pad(tokens))
    with torch.no_grad():
        normed = {k: lm.final_norm(h) if norm == "final" or k == lm.n_layers else h for k, h in kept.items()}
    # On several GPUs a tied head may sit elsewhere than the norm.
    return torch.stack([normed[k].to(lm.head_device) for k in range(lm.n_layers + 1)])


def _logits(lm: LanguageModel, states: Float[Tensor, "states d_model"]) -> Iterator[tuple[int, Tensor]]:
    """The logits of states that are ready for the head, float32, a chunk of the vocabulary at a time."""
    with torch.no_grad(), lm.unembedding() as (weight, bias):
        chunk = max(1, (_PAIRS if states.device.type == "cpu" else _PAIRS_GPU) // len(states))
        for start in range(0, len(weight), chunk):
            part = slice(start, start + chunk)
            logits = F.linear(states, weight[part], None if bias is None else bias[part])
            yield start, lm.scale_logits(logits).float()


def _score(
    lm: LanguageModel, states: Float[Tensor, "layers states d_model"], ids: Int[Tensor, "states targets spellings"]
) -> tuple[Float[Tensor, "layers states targets"], Int[Tensor, "layers states targets"]]:
    """Log-probability and rank of each target; an id of -1 is no spelling."""
    layers, count = states.shape[:2]
    flat = states.flatten(0, 1)
    wanted = ids.repeat(layers, 1, 1)
    logit = chosen_logits(lm, flat, wanted.flatten(1)).view(wanted.shape).masked_fill(wanted < 0, -torch.inf)
    # The better spelling has the larger logit, so the target's rank is the number of tokens above that one.
    best, which = logit.max(-1)
    best_id = wanted.gather(-1, which[..., None])[..., 0]
    above = torch.zeros_like(best)
    total = torch.full((len(flat),), -torch.inf, device=flat.device)
    for start, logits in _logits(lm, flat):
        total = total.logaddexp(logits.logsumexp(1))
        higher = torch.empty_like(logits)
        for target in range(best.shape[1]):
            above[:, target] += torch.gt(logits, best[:, target, None], out=higher).sum(1)
        # A token is never above itself, though its logit was computed twice and may have been rounded differently.
        own = best_id - start
        inside = (own >= 0) & (own < logits.shape[1])
        above -= (inside & (logits.gather(1, own.clamp(0, logits.shape[1] - 1)) > best)).float()
    logprob = logit.logsumexp(-1) - total[:, None]
    shape = (layers, count, best.shape[1])
    return logprob.view(shape).cpu(), above.long().view(shape).cpu()


def chosen_logits(
    lm: LanguageModel, states: Float[Tensor, "states d_model"], ids: Int[Tensor, "states ids"]
) -> Float[Tensor, "states ids"]:
    """The head's logits of a few tokens a state; the states are normed already, and an id of -1 is read as 0."""
    used, place = ids.clamp(min=0).unique(return_inverse=True)
    with torch.no_grad(), lm.unembedding() as (weight, bias):
        logits = F.linear(states, weight[used], None if bias is None else bias[used])
        return lm.scale_logits(logits).float().gather(1, place)


def _tidy(
    wanted: list[Targets],
    owner: list[int],
    places: list[int],
    logprob: Float[Tensor, "layers states targets"],
    rank: Int[Tensor, "layers states targets"],
) -> pd.DataFrame:
    layers, count, targets = logprob.shape

    def column(name: str) -> list:
        return [value for row in owner for value in getattr(wanted[row], name)] * layers

    return pd.DataFrame(
        {
            "text": torch.tensor(owner).repeat_interleave(targets).repeat(layers),
            "position": torch.tensor(places).repeat_interleave(targets).repeat(layers),
            "layer": torch.arange(layers).repeat_interleave(count * targets),
            "target": column("labels"),
            "token": column("tokens"),
            "logprob": logprob.flatten(),
            "rank": rank.flatten(),
            "shared": column("shared"),
            "whole": column("whole"),
        }
    )
