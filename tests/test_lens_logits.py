"""Logits of chosen tokens at states that one has: the lens's own, less what the softmax takes from all of them."""

import numpy as np
import pytest
import torch

import semhub_utils as sh
from semhub_utils.targets import read_targets

TEXTS = ["The dog and the cat see a bird.", "昨天我去了北京", "for w in words:"]
WORDS = {"dog": "dog", "cat": "cat", "bird": " bird"}


def of_logit_lens(lm, targets, norm):
    """(texts, layers, targets), each less the mean of its targets."""
    frame = sh.logit_lens(lm, TEXTS, targets, norm=norm)
    values = frame["logprob"].to_numpy().reshape(len(TEXTS), lm.n_layers + 1, -1)
    return values - values.mean(2, keepdims=True)


def centred(logits):
    return (logits - logits.mean(2, keepdim=True)).numpy()


@pytest.mark.parametrize("norm", ["final", "none"])
def test_differences_are_those_of_the_lens(lm, norm):
    states, ids = sh.hidden_states(lm, TEXTS), read_targets(lm, WORDS, 1)[0].ids
    np.testing.assert_allclose(
        centred(sh.lens_logits(lm, states, ids, norm)), of_logit_lens(lm, WORDS, norm), atol=1e-4
    )


@pytest.mark.parametrize("norm", ["final", "none"])
def test_the_last_row_is_the_models_own_logits_whatever_its_head_does(unusual, norm):
    ids = torch.tensor([[3], [300], [545]])
    found = sh.lens_logits(unusual, sh.hidden_states(unusual, TEXTS), ids, norm)[:, -1]
    own = torch.stack([unusual(text).logits[0, -1, [3, 300, 545]] for text in TEXTS])
    torch.testing.assert_close(found, own.detach(), rtol=1e-4, atol=1e-4)


def test_each_text_may_have_its_own_tokens_and_none_is_left_out_of_the_sum(llama):
    states = sh.hidden_states(llama, TEXTS)
    own = torch.tensor([[[3, -1], [5, 7]], [[8, 9], [300, -1]], [[1, -1], [2, -1]]])
    found = sh.lens_logits(llama, states, own)
    for text in range(3):
        alone = sh.lens_logits(llama, states[[text]], own[text])
        torch.testing.assert_close(found[[text]], alone)
    both = sh.lens_logits(llama, states[:1], torch.tensor([[5], [7]]))[0]
    torch.testing.assert_close(found[0, :, 1], both.logsumexp(-1))


def test_states_without_all_layers_and_tokens_that_are_none_are_named(llama):
    states = sh.hidden_states(llama, TEXTS)
    with pytest.raises(ValueError, match="states have 4 layers: give all 5"):
        sh.lens_logits(llama, states[:, 1:], torch.tensor([[1]]))
    with pytest.raises(ValueError, match="ids has 1 to 100000: tiny-llama has tokens 0 to"):
        sh.lens_logits(llama, states, torch.tensor([[1], [100000]]))
    with pytest.raises(ValueError, match="norm is 'both'"):
        sh.lens_logits(llama, states, torch.tensor([[1]]), norm="both")
