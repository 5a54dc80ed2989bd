"""Which languages a token belongs to, from word frequencies: the p(language | token) of the language-mass lens."""

import unicodedata
import warnings
from collections.abc import Sequence
from itertools import islice
from weakref import WeakKeyDictionary

import torch
import wordfreq
from jaxtyping import Float
from torch import Tensor

from semhub_utils.language_model import LanguageModel

# These write words without spaces between them, so that a token of theirs seldom begins with one.
_UNSPACED = {"zh", "ja", "th", "lo", "km", "my"}
# Cutting the words of ten languages takes seconds, and a chapter asks for the same ones again and again.
_made: WeakKeyDictionary[LanguageModel, dict] = WeakKeyDictionary()


def token_languages(
    lm: LanguageModel, languages: Sequence[str], words: int = 20_000
) -> tuple[list[str], Float[Tensor, "vocabulary languages"]]:
    """p(language | token) with all languages equally likely beforehand.

    For each language the most frequent words of `wordfreq` (Speer 2022) are cut into the model's tokens; a token
    gets the frequencies of the words it stands in. Words count as they stand in a text: after a space where the
    language has spaces, and half of the time with a capital where its script has capitals (German nouns always have
    one, and the lists are in small letters). Bayes' rule with equal priors gives p(language | token). Every language
    gives the same number of words, so that one with a longer list has no more tokens.

    Args:
        lm: the model whose tokens are meant.
        languages: two-letter codes. A language that `wordfreq` has no list for, such as Swahili (sw), is left out
            with a warning.
        words: how many words of each language; lists hold 26,000 (Hindi) and more.

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
            f"wordfreq has no words of {', '.join(missing)}: no mass can be given to that language, and what it has "
            "counts as 'other'",
            stacklevel=3,
        )
    known = _made.setdefault(lm, {})
    for language in there:
        if (language, words) not in known:
            known[language, words] = _counts(lm, language, words)
    counts = torch.stack([known[language, words] for language in there], 1)
    given_language = counts / counts.sum(0).clamp(min=1e-30)  # a language may have no token of its own at all
    total = given_language.sum(1, keepdim=True)
    return there, torch.where(total > 0, given_language / total.clamp(min=1e-30), 0.0).float()


def _counts(lm: LanguageModel, language: str, words: int) -> Float[Tensor, " vocabulary"]:
    """How often each token occurs in running text of a language, up to a factor."""
    lists = wordfreq.get_frequency_dict(language)  # word_frequency would want a Chinese word cutter for its input
    frequent = list(islice(filter(_is_word, sorted(lists, key=lambda word: -lists[word])), words))
    before = "" if language in _UNSPACED else " "
    counts = torch.zeros(lm.model.config.get_text_config().vocab_size, dtype=torch.float64)
    weight: dict[str, float] = {}
    for word in frequent:
        for spelling in (before + word, before + word.capitalize()):  # one and the same where there are no capitals
            weight[spelling] = weight.get(spelling, 0.0) + lists[word] / 2
    cut = lm.tokenizer(list(weight), add_special_tokens=False, return_attention_mask=False).input_ids
    ids = torch.tensor([token for tokens in cut for token in tokens])
    each = [w for tokens, w in zip(cut, weight.values(), strict=True) for _ in tokens]
    weights = torch.tensor(each, dtype=torch.float64)
    counts = counts.index_add(0, ids, weights)
    used = counts.nonzero()[:, 0]
    # Of no language: a space, an apostrophe. "\ufffd" is a part of a letter, as byte-level tokenizers write Hindi.
    counts[used[[not any(_is_letter(c) or c == "\ufffd" for c in text) for text in lm.token_text(used)]]] = 0.0
    return counts


def _is_word(text: str) -> bool:
    """Whether it is letters alone, an apostrophe or a hyphen among them: the lists also have numbers and mixtures."""
    return all(_is_letter(c) or c in "'’-" for c in text)


def _is_letter(character: str) -> bool:
    # Marks are the vowel signs of Hindi, which letters would not be readable without.
    return unicodedata.category(character)[0] in "LM"
