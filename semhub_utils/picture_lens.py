"""The logit lens over the tokens of a picture or a sound, for many words at once."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from semhub_utils.hooks import Positions
from semhub_utils.language_model import LanguageModel
from semhub_utils.lens import check_norm, chosen_states, positions_of
from semhub_utils.soft_tokens import Text
from semhub_utils.states import batches
from semhub_utils.targets import read_targets


def word_scores(
    lm: LanguageModel,
    inputs: Sequence[Text],
    words: Sequence[str],
    positions: Positions = "image",
    norm: str = "final",
    batch_size: int = 32,
    progress: bool = True,
    mean: bool = False,
) -> Float[Tensor, "inputs layers *positions words"]:
    """How the lens scores many words against one another, at every layer and position.

    The logit of the first token of each word, with and without a space before it (the two probabilities are summed).
    The softmax over the vocabulary would take the same off all words of one state, so ranks among the words and
    differences between them are those of log-probability, at a thousandth of the cost.

    Args:
        lm: the model.
        inputs: examples that have equally many of the chosen positions, or of any number with `mean`.
        words: what is looked for.
        positions: "image", "audio", or another choice as in `logit_lens`.
        norm: "final" or "none", see `logit_lens`.
        batch_size: inputs in one forward pass.
        progress: show a bar on work that takes more than a few seconds.
        mean: average over the positions, batch by batch. A picture of a large model has hundreds of positions, and
            the scores of all of them would not fit; the sounds of one have as many as they are long.

    Returns:
        (inputs, layers, positions, words), or (inputs, layers, words) of the mean, float32 on the CPU.

    Raises:
        ValueError: for inputs of unequal numbers of positions without `mean`, no words, and whatever `logit_lens`
            refuses.
    """
    check_norm(norm)
    if isinstance(words, str) or not len(words):
        raise ValueError(f"words is {words!r}: give a list with one or more")
    tokens = lm.token_ids(list(inputs))
    places = positions_of(lm, positions, tokens)
    count = {len(one) for one in places}
    if len(count) > 1 and not mean:
        raise ValueError(f"the inputs have {min(count)} to {max(count)} such positions: give inputs with equally many")
    ids = torch.cat([read_targets(lm, {word: word}, 1)[0].ids for word in words]).to(lm.head_device)
    used, place = ids.clamp(min=0).unique(return_inverse=True)
    found = torch.empty(len(tokens), lm.n_layers + 1, *([] if mean else [max(count)]), len(words))
    for rows in batches(tokens, batch_size, progress):
        states = chosen_states(lm, [tokens[row] for row in rows], [places[row] for row in rows], norm)
        with torch.no_grad(), lm.unembedding() as (weight, bias):
            logit = F.linear(states.flatten(0, 1), weight[used], None if bias is None else bias[used])
            logit = lm.scale_logits(logit).float()[:, place]
        logit = logit.masked_fill(ids < 0, -torch.inf).logsumexp(-1).unflatten(0, (lm.n_layers + 1, -1)).cpu()
        each = logit.split([len(places[row]) for row in rows], dim=1)
        for row, one in zip(rows, each, strict=True):
            found[row] = one.mean(1) if mean else one
    return found


def word_ranks(
    scores: Float[Tensor, "inputs layers *positions words"], gold: Sequence[int], centred: bool = False
) -> Int[Tensor, "inputs layers"]:
    """The rank of one word of each input among all, 0 the best, by its mean score over the positions.

    Args:
        scores: what `word_scores` returns, of all positions or of their mean.
        gold: the number of each input's word.
        centred: take the mean over the inputs off each word first. A word that is likely after any picture then
            counts for no more than another: the rank says what this input adds, as when matched pairs are held
            against all others (Wu et al. 2024, Eq. 1).
    """
    mean = scores.mean(2) if scores.dim() == 4 else scores
    mean = mean - mean.mean(0) if centred else mean
    own = mean[torch.arange(len(mean)), :, torch.as_tensor(gold)]
    return (mean > own[..., None]).sum(-1)
