"""Scores of words over a picture's tokens: against the lens itself."""

import numpy as np
import pytest
import torch

import semhub_utils as sh
from semhub_utils.picture_lens import word_ranks, word_scores
from test_soft_tokens import TEXT, picture, with_eyes

WORDS = ["dog", " cat", "the"]


@pytest.fixture
def any_seeing(lm):
    return with_eyes(lm)


@pytest.mark.parametrize("norm", ["final", "none"])
def test_differences_of_scores_are_those_of_log_probability(any_seeing, norm):
    inputs = [sh.Example(TEXT, picture(seed)) for seed in range(3)]
    scores = word_scores(any_seeing, inputs, WORDS, norm=norm, batch_size=2, progress=False)
    targets = {word: word for word in WORDS}
    frame = sh.logit_lens(any_seeing, inputs, targets, positions="image", norm=norm, progress=False)
    wide = frame.pivot(index=["text", "layer", "position"], columns="target", values="logprob")[WORDS]
    expected = wide.to_numpy().reshape(scores.shape)
    np.testing.assert_allclose(scores - scores[..., :1], expected - expected[..., :1], atol=2e-4)


@pytest.mark.parametrize("norm", ["final", "none"])
def test_the_mean_over_positions_is_that_of_all_scores_and_has_the_same_ranks(any_seeing, norm):
    inputs = [sh.Example(TEXT, picture(seed)) for seed in range(3)]
    scores = word_scores(any_seeing, inputs, WORDS, norm=norm, progress=False)
    mean = word_scores(any_seeing, inputs, WORDS, norm=norm, batch_size=2, progress=False, mean=True)
    assert mean.shape == (3, any_seeing.n_layers + 1, len(WORDS))
    torch.testing.assert_close(mean, scores.mean(2), rtol=1e-4, atol=1e-4)
    assert word_ranks(mean, [0, 1, 2]).tolist() == word_ranks(scores.mean(2, keepdim=True), [0, 1, 2]).tolist()


def test_positions_may_be_others(llama):
    scores = word_scores(llama, ["the dog sees", "cat"], WORDS, positions="last", progress=False)
    frame = sh.logit_lens(llama, ["the dog sees", "cat"], {w: w for w in WORDS}, progress=False)
    expected = frame.pivot(index=["text", "layer"], columns="target", values="logprob")[WORDS].to_numpy()
    got = scores[:, :, 0].flatten(0, 1).numpy()
    np.testing.assert_allclose(got - got[:, :1], expected - expected[:, :1], atol=2e-4)


def test_ranks_count_the_words_above_on_average_over_the_positions():
    scores = torch.zeros(2, 1, 2, 4)
    scores[0, 0] = torch.tensor([[4.0, 0, 1, 3], [0, 0, 3, 3]])  # means 2, 0, 2, 3
    scores[1, 0] = torch.tensor([[1.0, 2, 3, 4], [1, 2, 3, 4]])
    assert word_ranks(scores, [0, 3])[:, 0].tolist() == [1, 0]
    assert word_ranks(scores, [1, 0])[:, 0].tolist() == [3, 3]
    # Less the means over the two, the first leans to word 0 and the second away from it.
    assert word_ranks(scores, [0, 1], centred=True)[:, 0].tolist() == [0, 0]
    assert word_ranks(scores, [3, 0], centred=True)[:, 0].tolist() == [1, 3]


def test_what_cannot_be_scored_is_said(llama):
    with pytest.raises(ValueError, match="the inputs have 2 to 3 such positions"):
        word_scores(with_eyes(llama), ["dog", "the dog"], WORDS, positions="all")
    for words in ([], "dog"):
        with pytest.raises(ValueError, match="give a list with one or more"):
            word_scores(llama, ["dog"], words, positions="last")
    with pytest.raises(ValueError, match="norm is"):
        word_scores(llama, ["dog"], WORDS, positions="last", norm="no")
