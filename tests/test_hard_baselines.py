"""Cosines over chosen pairs against a plain loop, and the null of a paired difference against its closed form."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import semhub_utils as sh

SIGNS = list(itertools.product((-1, 1), repeat=3))


def states(n, layers=2, d=5, seed=0):
    return torch.randn(n, layers, d, generator=torch.Generator().manual_seed(seed)).double()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.booleans(), st.data())
def test_it_is_the_mean_of_a_loop_over_the_marked_pairs(n, m, centre, data):
    pairs = np.array(data.draw(st.lists(st.lists(st.booleans(), min_size=m, max_size=m), min_size=n, max_size=n)))
    a, b = states(n), states(m, seed=1)
    got = sh.pair_scores(a, b, pairs, centre)
    for i, layer in itertools.product(range(n), range(2)):
        x, y = (h[:, layer] - (h[:, layer].mean(0) if centre else 0) for h in (a, b))
        wanted = [float(torch.cosine_similarity(x[i], y[j], dim=0)) for j in range(m) if pairs[i, j]]
        if wanted:
            assert got[i, layer] == pytest.approx(sum(wanted) / len(wanted), abs=1e-9)
        else:
            assert math.isnan(got[i, layer])


def test_several_tables_give_what_each_gives_alone():
    tables = np.random.default_rng(0).random((3, 4, 6)) < 0.5
    together = sh.pair_scores(states(4), states(6, seed=1), tables)
    for table, scores in zip(tables, together, strict=True):
        np.testing.assert_allclose(scores, sh.pair_scores(states(4), states(6, seed=1), table), atol=1e-12)


def test_matched_minus_all_others_is_the_measure_of_similarity():
    a, b = states(9), states(9, seed=1)
    own = np.eye(9, dtype=bool)
    for measure, centre in (("centred", True), ("adjusted", False)):
        gap = (sh.pair_scores(a, b, own, centre) - sh.pair_scores(a, b, ~own, centre)).mean(0)
        frame = sh.similarity(a, b, samples=5, shuffles=5)
        np.testing.assert_allclose(gap, frame[frame["measure"] == measure]["value"], atol=1e-9)


def test_a_partner_in_name_only_is_told_from_the_right_one():
    # Two forms of the same things share all but a small part that says which thing it is.
    shared, own, wrong = states(40, d=16), states(40, d=16, seed=1), states(40, d=16, seed=2)
    a, right, swapped = shared + 0.3 * own, shared + 0.3 * own, shared + 0.3 * wrong
    each = np.eye(40, dtype=bool)
    gap = sh.pair_scores(a, right, each) - sh.pair_scores(a, swapped, each)
    assert gap.mean(0).min() > np.quantile(sh.flip_signs(gap), 0.95)
    neither = sh.pair_scores(a, shared + 0.3 * states(40, d=16, seed=3), each) - sh.pair_scores(a, swapped, each)
    assert neither.mean(0).max() < np.quantile(sh.flip_signs(neither), 0.95)


def test_pairs_of_another_shape_and_states_of_another_model_are_named(untyped):
    with pytest.raises(ValueError, match=r"pairs is \(3, 3\): give a row for each of 3 items and a column for 4"):
        untyped(sh.pair_scores)(states(3), states(4), np.eye(3, dtype=bool))
    with pytest.raises(ValueError, match="the same layers and dimensions"):
        untyped(sh.pair_scores)(states(3), states(3, layers=3), np.eye(3, dtype=bool))
    zero = states(3)
    zero[1, 0] = 0
    with pytest.raises(ValueError, match="b has a state of zeros, the first in item 1"):
        sh.pair_scores(states(3), zero, np.eye(3, dtype=bool))


def test_flipped_signs_are_every_pattern_equally_often():
    scores = np.array([[1.0], [2.0], [4.0]])  # each of the eight patterns has a mean of its own
    draws = sh.flip_signs(scores, times=8000)
    patterns = sorted(sum(s * v for s, v in zip(signs, (1, 2, 4), strict=True)) / 3 for signs in SIGNS)
    values, counts = np.unique(draws.round(9), return_counts=True)
    np.testing.assert_allclose(values, patterns, atol=1e-8)
    assert (abs(counts - 1000) < 5 * math.sqrt(8000 * 1 / 8 * 7 / 8)).all()


def test_an_item_flips_at_all_layers_together_and_the_highest_is_kept():
    one = np.random.default_rng(0).normal(size=(30, 1))
    same = sh.flip_signs(np.repeat(one, 4, axis=1), times=200)
    np.testing.assert_allclose(same, sh.flip_signs(one, times=200))
    both = sh.flip_signs(np.concatenate([one, -one], axis=1), times=200)
    np.testing.assert_allclose(both, abs(sh.flip_signs(one, times=200)))


def test_the_null_is_exceeded_by_noise_in_about_5_of_100_and_by_a_difference_always():
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(300, 40, 6))
    high = [np.quantile(sh.flip_signs(scores, times=200, seed=i), 0.95) for i, scores in enumerate(noise)]
    false = sum(scores.mean(0).max() > limit for scores, limit in zip(noise, high, strict=True))
    assert 4 <= false <= 30  # 15 are expected
    assert all((scores + 0.8).mean(0).max() > limit for scores, limit in zip(noise, high, strict=True))


def test_too_few_items_draws_and_values_that_are_not_finite_are_named():
    with pytest.raises(ValueError, match=r"scores has the shape \(1, 2\): give a table of two or more items"):
        sh.flip_signs(np.zeros((1, 2)))
    with pytest.raises(ValueError, match="times is 0: draw at least one"):
        sh.flip_signs(np.zeros((3, 2)), times=0)
    with pytest.raises(ValueError, match="1 of 6 values are not finite"):
        sh.flip_signs(np.array([[0, 1], [2, np.nan], [0, 0]]))
