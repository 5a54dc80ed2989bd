"""Which languages a token belongs to, and how much of a lens's probability falls on each language.

p(language | token) comes from word frequencies; the language mass of a state weights it with the logit lens.
"""

import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from itertools import islice
from weakref import WeakKeyDictionary

import pandas as pd
import torch
import torch.nn.functional as F
import wordfreq
from jaxtyping import Float
from torch import Tensor

from semhub_utils.hooks import Positions
from semhub_utils.language_model import LanguageModel
from semhub_utils.lens import check_norm, chosen_states, positions_of
from semhub_utils.soft_tokens import Text
from semhub_utils.states import batches

# These write words without spaces between them, so that a token of theirs seldom begins with one.
_UNSPACED = {"zh", "ja"}
# Probabilities held at one time, as (state, token) pairs: 256 MiB in float32; a product over fewer states is slow.
_PAIRS = 2**26
# Cutting the words of ten languages takes seconds, and a chapter asks for the same ones again and again.
_made: WeakKeyDictionary[LanguageModel, dict] = WeakKeyDictionary()


def token_languages(
    lm: LanguageModel, languages: Sequence[str], words: int = 20_000
) -> tuple[list[str], Float[Tensor, "vocabulary languages"]]:
    """p(language | token) with all languages equally likely beforehand.

    For each language the most frequent words of `wordfreq` (Speer 2022) are cut into the model's tokens; a token gets
    the frequencies of the words it stands in. Words count as they stand in a text: after a space where the language has
    spaces, and half of the time with a capital where its script has capitals (German nouns always have one, and the
    lists are in small letters). Bayes' rule with equal priors gives p(language | token). Every language gives the same
    number of words where its list has them, so that one with a longer list has no more tokens. The first call for a
    language takes about a second.

    Args:
        lm: the model whose tokens are meant.
        languages: two-letter codes. A language that `wordfreq` has no list for, such as Swahili (sw), is left out
            with a warning.
        words: how many words of each language, or all that its list has (10,000 for Vietnamese, 26,000 for Hindi,
            200,000 and more for most).

    Returns:
        The languages that are there, and for each token of the vocabulary their probabilities, float32. A token
        without a letter, such as a digit or a comma, and one that no list has are of no language: zeros.

    Raises:
        ValueError: for a language named twice, none that `wordfreq` has, or a number of words below 1.
    """
    if isinstance(words, bool) or not isinstance(words, int) or words < 1:
        raise ValueError(f"words is {words!r}: give 1 or more words of each language (20,000 is a good number)")
    if len(set(languages)) < len(languages):
        raise ValueError(f"languages is {list(languages)}: name each once, or its mass is split")
    available = wordfreq.available_languages("best")
    there = [language for language in languages if language in available]
    missing = [language for language in languages if language not in available]
    if not there:
        raise ValueError(f"languages is {list(languages)}: wordfreq has {', '.join(sorted(available))}")
    if missing:
        warnings.warn(
            f"wordfreq has no words of {', '.join(missing)}: no mass can be given to it, and what it has "
            "counts as 'other'",
            stacklevel=3,
        )
    tables = _made.setdefault(lm, {})
    if (*there, words) not in tables:
        tables[*there, words] = _table(lm, there, words)
    return there, tables[*there, words]


def _table(lm: LanguageModel, languages: list[str], words: int) -> Float[Tensor, "vocabulary languages"]:
    counts = torch.stack([_counts(lm, language, _frequent(language, words)) for language in languages], 1)
    counts[lm.tokenizer.all_special_ids] = 0.0  # the token for what is unknown, where a tokenizer has one
    used = counts.sum(1).nonzero()[:, 0]
    # Of no language: a space, an apostrophe. "\ufffd" is a part of a letter, as byte-level tokenizers write Hindi.
    wordless = [not any(_is_letter(c) or c == "\ufffd" for c in text) for text in lm.token_text(used)]
    counts[used[torch.tensor(wordless, dtype=torch.bool)]] = 0.0
    given_language = counts / counts.sum(0).clamp(min=1e-30)  # a language may have no token of its own at all
    total = given_language.sum(1, keepdim=True)
    return torch.where(total > 0, given_language / total.clamp(min=1e-30), 0.0).float()


def language_mass(
    lm: LanguageModel,
    texts: Text | Sequence[Text],
    languages: Sequence[str],
    positions: Positions = "last",
    norm: str = "final",
    shuffles: int = 100,
    seed: int = 0,
    batch_size: int = 32,
    progress: bool = True,
) -> pd.DataFrame:
    """How much of the lens's probability falls on tokens of each language, at every layer.

        p(language | h) = sum over tokens v of p_lens(v | h) p(language | v)

    (Wu et al. 2024, section 3.1), with p(language | v) from `token_languages` and p_lens from the logit lens.

    The control deals the rows of the unembedding out to the tokens at random: the same states, the same lens, but no
    row says what its token means. One deal serves all texts, as the unembedding does, so that a token which the lens
    reads in every text is one stroke of luck and not many.

    Args:
        lm: the model.
        texts: one text or several.
        languages: two-letter codes. One without a word list (sw) is left out with a warning.
        positions: as for `logit_lens`; the mass is averaged over a text's positions.
        norm: "final" or "none", see `logit_lens`.
        shuffles: how many deals for the control.
        seed: of the deals.
        batch_size: texts in one forward pass.
        progress: show a bar on work that takes more than a few seconds.

    Returns:
        A tidy frame: `text` (its index), `layer`, `language`, `mass`, and `null_high`, which the mean over texts at
        that layer stays below in 95% of the deals (the same for every text). The language "other" holds what falls on
        tokens of no list, so that the masses of a text and layer sum to 1.

    Raises:
        ValueError: as `logit_lens` and `token_languages` do, and for fewer than 20 deals.
    """
    check_norm(norm)
    if isinstance(shuffles, bool) or not isinstance(shuffles, int) or shuffles < 20:
        raise ValueError(f"shuffles is {shuffles!r}: a 95% quantile needs at least 20")
    tokens = lm.token_ids(texts)
    places = positions_of(lm, positions, tokens)
    there, table = token_languages(lm, languages)
    layers, device = lm.n_layers + 1, lm.head_device
    table = torch.cat([table, 1 - table.sum(1, keepdim=True)], 1).to(device)
    mass = torch.zeros(len(tokens), layers, table.shape[1], device=device)
    mean = torch.zeros(layers, len(table), device=device)  # the lens's probabilities, averaged over the texts
    for rows in batches(tokens, batch_size, progress):
        states = chosen_states(lm, [tokens[row] for row in rows], [places[row] for row in rows], norm)
        owner = torch.tensor([row for row in rows for _ in places[row]], device=device).repeat(layers)
        share = torch.tensor([1 / len(places[row]) for row in rows for _ in places[row]], device=device).repeat(layers)
        layer = torch.arange(layers, device=device).repeat_interleave(states.shape[1])
        for at, prob in _probabilities(lm, states.flatten(0, 1)):
            mass.index_put_((owner[at], layer[at]), (prob @ table) * share[at, None], accumulate=True)
            mean += (F.one_hot(layer[at], layers).T * share[at] / len(tokens)) @ prob
            del prob  # or the next ones would be made beside it
    generator = torch.Generator().manual_seed(seed)
    deals = [mean @ table[torch.randperm(len(table), generator=generator).to(device)] for _ in range(shuffles)]
    null_high = torch.stack(deals).quantile(0.95, dim=0).expand_as(mass)
    names = ["text", "layer", "language"]
    index = pd.MultiIndex.from_product([range(len(tokens)), range(layers), [*there, "other"]], names=names)
    columns = {"mass": mass.cpu().flatten(), "null_high": null_high.cpu().flatten()}
    frame = pd.DataFrame(columns, index).reset_index()
    frame.attrs["norm"] = norm
    return frame


def _frequent(language: str, words: int) -> dict[str, float]:
    """The most frequent words of a language with their frequencies."""
    lists = wordfreq.get_frequency_dict(language)  # word_frequency would want a Chinese word cutter for its input
    found = {w: lists[w] for w in islice(filter(_is_word, sorted(lists, key=lists.__getitem__, reverse=True)), words)}
    wordfreq.get_frequency_dict.cache_clear()  # it would keep 40 MiB a language for the rest of the process
    return found


def _counts(lm: LanguageModel, language: str, frequent: dict[str, float]) -> Float[Tensor, " vocabulary"]:
    """How often each token occurs in running text of a language, up to a factor."""
    before = "" if language in _UNSPACED else " "
    counts = torch.zeros(lm.model.config.get_text_config().vocab_size, dtype=torch.float64)
    weight: dict[str, float] = {}
    for word, frequency in frequent.items():
        for spelling in (before + word, before + word.capitalize()):  # one and the same where there are no capitals
            weight[spelling] = weight.get(spelling, 0.0) + frequency / 2
    cut = lm.cut(list(weight), special=False)
    each = [w for tokens, w in zip(cut, weight.values(), strict=True) for _ in tokens]
    ids = torch.tensor([token for tokens in cut for token in tokens], dtype=torch.long)
    return counts.index_add_(0, ids, torch.tensor(each, dtype=torch.float64))


def _is_word(text: str) -> bool:
    """Whether it is letters alone, an apostrophe or a hyphen among them: the lists also have numbers and mixtures."""
    return all(_is_letter(c) or c in "'’-\u200c\u200d" for c in text)  # Persian and Hindi join with the last two


def _is_letter(character: str) -> bool:
    # Marks are the vowel signs of Hindi, which letters would not be readable without.
    return unicodedata.category(character)[0] in "LM"


def _probabilities(
    lm: LanguageModel, states: Float[Tensor, "states d_model"]
) -> Iterator[tuple[slice, Float[Tensor, "some vocabulary"]]]:
    """The lens's probabilities over the whole vocabulary, a few states at a time."""
    with torch.no_grad(), lm.unembedding() as (weight, bias):
        some = max(1, _PAIRS // len(weight))
        for start in range(0, len(states), some):
            at = slice(start, start + some)
            logits = lm.scale_logits(F.linear(states[at], weight, bias)).float()
            prob = logits.sub_(logits.amax(1, keepdim=True)).exp_()  # in place, to hold them once
            yield at, prob.div_(prob.sum(1, keepdim=True))
