"""What steering does to a text: its verdict, its fluency, its relevance, its language."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import takewhile
from typing import Any

import torch
from jaxtyping import Float, Int
from py3langid.langid import MODEL_FILE, LanguageIdentifier
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from semhub_utils.hooks import State, Where, watch
from semhub_utils.language_model import LanguageModel
from semhub_utils.lens import chosen_logits
from semhub_utils.soft_tokens import Example, Text
from semhub_utils.states import batches, hidden_states
from semhub_utils.targets import read_targets

Words = tuple[Sequence[str], Sequence[str]]


def log_odds(
    lm: LanguageModel,
    texts: Text | Sequence[Text],
    positive: Sequence[str],
    negative: Sequence[str],
    batch_size: int = 64,
) -> Float[Tensor, " texts"]:
    """How much likelier the next word is one of `positive` than one of `negative`.

    log sum p(positive) - log sum p(negative), over the first tokens of the words with and without a space before
    them; a token that both sides have says nothing and is left out. Only those rows of the unembedding are used, so
    it costs no more than the blocks. Under `steer` or `edit` it is that of the changed model.

    Args:
        lm: the model.
        texts: one or several, to be continued.
        positive: words, such as good ones in the language of the texts.
        negative: the words they are weighed against.
        batch_size: texts in one forward pass.

    Returns:
        float32 on the CPU, in nats.

    Raises:
        ValueError: for an empty side, a word that is no token, or a side whose every first token the other has.
    """
    ids = word_ids(lm, [(positive, negative)])
    return odds_of(lm, hidden_states(lm, texts, batch_size=batch_size, progress=False)[:, -1], ids)


def word_ids(lm: LanguageModel, words: Sequence[Words]) -> Int[Tensor, "pairs 2 tokens"]:
    """The first tokens of each side that the other has not, -1 where a side has fewer; errors as in `log_odds`."""
    rows = []
    for pair in words:
        if len(pair) != 2 or not all(len(side) for side in pair):
            raise ValueError(f"words is {pair!r}: give two lists, positive and negative words, neither of them empty")
        for side in pair:
            if isinstance(side, str):
                raise ValueError(f"one side of words is the str {side!r}: give a list of words, such as [{side!r}]")
        found = [
            {int(i): word for word in side for i in read_targets(lm, {word: word}, 1)[0].ids.flatten() if i >= 0}
            for side in pair
        ]
        both = found[0].keys() & found[1].keys()
        if not all(side.keys() - both for side in found):
            names = ", ".join(f"{found[0][i]!r} and {found[1][i]!r}" for i in both)
            raise ValueError(f"{names} begin with the same token in {lm.spec.name}, and a side has no other: add words")
        rows += [torch.tensor([i for i in side if i not in both]) for side in found]
    return pad_sequence(rows, batch_first=True, padding_value=-1).unflatten(0, (-1, 2))


def odds_of(
    lm: LanguageModel, states: Float[Tensor, "texts d_model"], ids: Int[Tensor, "pairs 2 tokens"]
) -> Float[Tensor, " texts"]:
    """Log-odds from the states after the last block, for one pair of word lists or one a text."""
    ids = ids.expand(len(states), -1, -1).to(lm.head_device)
    with torch.no_grad():
        normed = lm.final_norm(states.to(lm.head_device, lm.head.weight.dtype)).to(lm.head_device)
    logit = chosen_logits(lm, normed, ids.flatten(1)).view(ids.shape)
    both = logit.masked_fill(ids < 0, -torch.inf).logsumexp(-1).cpu()
    return both[:, 0] - both[:, 1]


def log_loss(
    lm: LanguageModel,
    prompts: Sequence[Text],
    continuations: Sequence[str],
    batch_size: int = 32,
    progress: bool = True,
) -> Float[Tensor, " texts"]:
    """How surprising each continuation is to the model, in nats a token: -mean log p(token | prompt and before).

    Of a model that is not steered now this is the fluency of text that it wrote while it was. Prompt and
    continuation are cut into tokens together, and what the prompt alone does not begin with counts.

    Args:
        lm: the model.
        prompts: what came before.
        continuations: what is judged, one a prompt.
        batch_size: texts in one forward pass.
        progress: show a bar on work that takes more than a few seconds.

    Returns:
        float32 on the CPU; NaN for a continuation without a token.

    Raises:
        ValueError: for another number of continuations than prompts.
    """
    if len(prompts) != len(continuations):
        raise ValueError(f"there are {len(continuations)} continuations of {len(prompts)} prompts: give one for each")
    tokens = lm.token_ids([_longer(*pair) for pair in zip(prompts, continuations, strict=True)])
    starts = [_begins(*pair) for pair in zip(lm.token_ids(prompts), tokens, strict=True)]
    result = torch.full((len(tokens),), torch.nan)
    for rows in batches(tokens, batch_size, progress):

        def keep(_: int, state: State, where: Where, rows: Sequence[int] = rows) -> None:
            # All texts of the batch together: the head is read from memory once for many tokens.
            at = [state[line, where.index[line] >= 0][starts[row] - 1 : -1] for line, row in enumerate(rows)]
            new = torch.tensor([token for row in rows for token in tokens[row][starts[row] :]], dtype=torch.long)
            lost = [_loss(lm, *part) for part in zip(torch.cat(at).split(64), new.split(64), strict=True)]
            for row, loss in zip(rows, torch.cat(lost).split([len(states) for states in at]), strict=True):
                result[row] = loss.mean()

        with watch(lm, lm.n_layers, keep):
            lm.run(lm.pad([tokens[row] for row in rows]))
    return result


def _loss(lm: LanguageModel, states: Float[Tensor, "tokens d_model"], new: Int[Tensor, " tokens"]) -> Tensor:
    with torch.no_grad():
        logits = lm.scale_logits(lm.head(lm.final_norm(states).to(lm.head_device))).float()
    return (logits.logsumexp(-1) - logits.gather(1, new[:, None].to(logits.device))[:, 0]).cpu()


def _longer(prompt: Text, continuation: str) -> Text:
    if isinstance(prompt, Example):
        return replace(prompt, text=prompt.text + continuation)
    return prompt + continuation


def _begins(prompt: list[int], both: list[int]) -> int:
    # Where the two meet a token may be half of either: it counts. The first of all is never predicted.
    same = (a == b for a, b in zip(prompt, both, strict=False))
    return max(1, sum(takewhile(bool, same)))


def relevance(
    lm: LanguageModel, texts: Sequence[str], others: Sequence[str], layer: int, batch_size: int = 32
) -> Float[Tensor, " texts"]:
    """How close in meaning each text is to its partner, as the model itself reads them when it is not steered.

    The cosine of their mean states at a layer, after the mean over all of `others` has been taken off both, so that
    0 is no closer than any two of these texts, and 1 the same.

    Args:
        lm: the model.
        texts: such as steered continuations.
        others: their partners, such as the continuations without steering; two or more that differ.
        layer: one where meanings meet, in the middle.
        batch_size: texts in one forward pass.

    Raises:
        ValueError: for lists of different length, or fewer than two texts.
    """
    if len(texts) != len(others) or len(texts) < 2:
        raise ValueError(f"there are {len(texts)} texts and {len(others)} others: give two or more pairs")
    layer = lm.check_layer(layer)
    states = hidden_states(lm, [*texts, *others], "mean", batch_size, progress=False)[:, layer]
    centred = states - states[len(texts) :].mean(0)
    return torch.cosine_similarity(centred[: len(texts)], centred[len(texts) :])


def sentiment(texts: Sequence[str], classifier: str, batch_size: int = 32) -> Float[Tensor, " texts"]:
    """p(positive) - p(negative) of each text, by a classifier that knows nothing of the model that wrote it.

    Args:
        texts: any.
        classifier: a sequence classifier with a positive and a negative label: a name on the hub, such as
            "cardiffnlp/twitter-xlm-roberta-base-sentiment" (eight languages, Barbieri et al. 2022), or a folder.
        batch_size: texts in one forward pass.

    Raises:
        ValueError: for a classifier without such labels, with those that it has.
    """
    from transformers import pipeline  # late: it brings in all kinds of pipelines, a second for everybody else

    judge: Any = pipeline("text-classification", model=classifier, top_k=None)
    labels = {str(label).lower(): sign for label in judge.model.config.id2label.values() if (sign := _sign(str(label)))}
    if sorted(labels.values()) != [-1, 1]:
        known = ", ".join(map(str, judge.model.config.id2label.values()))
        raise ValueError(f"{classifier} has the labels {known}: give a classifier with one positive and one negative")
    found = judge(list(texts), batch_size=batch_size, truncation=True)
    return torch.tensor([sum(labels.get(p["label"].lower(), 0) * p["score"] for p in scores) for scores in found])


def _sign(label: str) -> int:
    return label.lower().startswith("pos") - label.lower().startswith("neg")


def identify(texts: Sequence[str], among: Sequence[str] | None = None) -> list[str]:
    """The language that each text is written in, as a two-letter code, by py3langid (Lui and Baldwin 2012).

    Args:
        texts: any; of a few words it is a guess. On short sentences, told to choose among six languages, it is right.
        among: the codes that it may be; by default any that it knows. Fewer make a better guess.

    Returns:
        One code a text, "" for a text without a letter.

    Raises:
        ValueError: for a code that it does not know.
    """
    identifier = _identifier(None if among is None else tuple(among))
    return [identifier.classify(text)[0] if any(c.isalpha() for c in text) else "" for text in texts]


@lru_cache
def _identifier(among: tuple[str, ...] | None) -> LanguageIdentifier:
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    if among is not None:
        if unknown := set(among) - set(identifier.labels):
            raise ValueError(f"py3langid does not know {sorted(unknown)}: it knows {', '.join(identifier.labels)}")
        identifier.set_languages(among)
    return identifier
