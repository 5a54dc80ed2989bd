"""Intervals, a layer picked on one half and judged on the other, and Holm: each against what it is by definition."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import semhub_utils as sh
from semhub_utils.resampling import Picked, draw_weights

PROBABILITY = st.floats(0, 1) | st.sampled_from([0.0, 0.01, 0.025, 0.05, 1.0])


@given(n=st.integers(2, 40), times=st.integers(1, 30), seed=st.integers(0, 10**6))
@settings(deadline=None, max_examples=40)
def test_every_sample_draws_n_items(n, times, seed):
    weights = draw_weights(n, times, seed)
    assert weights.shape == (times, n)
    assert np.issubdtype(weights.dtype, np.integer)
    assert (weights >= 0).all()
    assert (weights.sum(1) == n).all()


def test_every_item_is_drawn_equally_often_and_as_multinomial_as_it_should_be():
    n, times = 5, 40_000
    weights = draw_weights(n, times)
    # The count of one item is binomial(n, 1/n); two items are negatively related.
    assert np.allclose(weights.mean(0), 1, atol=5 * np.sqrt(0.8 / times))
    assert np.allclose(weights.var(0), 1 - 1 / n, atol=0.03)
    assert np.allclose(np.cov(weights.T)[np.triu_indices(n, 1)], -1 / n, atol=0.03)


def test_the_same_seed_draws_the_same_and_another_does_not():
    assert np.array_equal(draw_weights(9, 50, 3), draw_weights(9, 50, 3))
    assert not np.array_equal(draw_weights(9, 50, 3), draw_weights(9, 50, 4))
    assert np.array_equal(draw_weights(9, 50), draw_weights(9, 50, 0))
    assert draw_weights(9).shape == (2000, 9)


@pytest.mark.parametrize("shape", [(7,), (7, 3), (7, 3, 2)])
def test_the_means_are_those_of_a_loop_that_resamples_rows(shape):
    values = np.random.default_rng(1).normal(size=shape)
    got = sh.bootstrap(values, times=25, seed=6)
    assert got.shape == (25, *shape[1:])
    for counts, mean in zip(draw_weights(7, 25, 6), got, strict=True):
        rows = [values[item] for item, count in enumerate(counts) for _ in range(count)]
        assert len(rows) == 7
        assert np.allclose(mean, sum(rows) / 7, rtol=0, atol=1e-12)


def test_two_layers_are_compared_on_the_same_items():
    values = np.random.default_rng(2).normal(size=(30, 1))
    both = sh.bootstrap(np.concatenate([values, values + 0.25], 1), times=100)
    assert np.allclose(both[:, 1] - both[:, 0], 0.25, rtol=0, atol=1e-12)
    one, other = sh.bootstrap(values, 100, 5), sh.bootstrap(values + 0.25, 100, 5)
    assert np.allclose(other - one, 0.25, rtol=0, atol=1e-12)


def test_draws_with_one_seed_are_the_same_and_with_another_are_not():
    values = np.random.default_rng(2).normal(size=30)
    assert np.array_equal(sh.bootstrap(values, 60, 1), sh.bootstrap(values, 60, 1))
    assert not np.array_equal(sh.bootstrap(values, 60, 1), sh.bootstrap(values, 60, 2))


def test_the_spread_of_the_draws_is_sigma_over_the_root_of_n():
    values = np.random.default_rng(3).normal(10, 3, size=400)
    draws = sh.bootstrap(values, times=4000)
    assert draws.std() == pytest.approx(values.std() / 20, rel=0.05)
    assert draws.std() == pytest.approx(3 / 20, rel=0.12)
    assert draws.mean() == pytest.approx(values.mean(), abs=5 * values.std() / 20 / np.sqrt(4000))


def test_an_interval_holds_the_middle_of_the_draws():
    draws = np.stack([np.arange(1001.0), -np.arange(1001.0)], 1)[np.random.default_rng(0).permutation(1001)]
    low, high = sh.interval(draws)
    assert np.allclose([low, high], [[25, -975], [975, -25]])
    low, high = sh.interval(draws, 0.5)
    assert np.allclose([low, high], [[250, -750], [750, -250]])


def test_a_95_percent_interval_covers_the_mean_in_about_95_of_100_samples():
    runs = 1000
    values = np.random.default_rng(4).normal(2, 5, size=(60, runs))
    low, high = sh.interval(sh.bootstrap(values, times=400))
    covered = ((low < 2) & (high > 2)).mean()
    # The percentile interval of 60 items is a little short: 94 to 94.5 of 100. Three standard errors about that.
    assert 0.925 < covered < 0.965
    low, high = sh.interval(sh.bootstrap(values, times=400), 0.5)
    assert 0.44 < ((low < 2) & (high > 2)).mean() < 0.55


def test_luck_is_gone_on_the_other_half():
    """The test that the whole procedure is for: noise at 40 layers."""
    judged, boasted = [], []
    for seed in range(150):
        scores = np.random.default_rng(seed).normal(size=(50, 40))
        picked = sh.pick_and_judge(scores, range(40), seed=seed)
        judged.append(picked.score.mean())
        boasted.append(scores.mean(0).max())
    error = np.std(judged) / np.sqrt(150)
    assert abs(np.mean(judged)) < 3.5 * error
    assert np.mean(boasted) > 15 * error, "the highest mean on the same items is no score of anything"


def test_a_planted_layer_is_found_and_judged_at_its_own_height():
    scores = np.random.default_rng(5).normal(size=(200, 20))
    scores[:, 13] += 1
    picked = sh.pick_and_judge(scores, range(20))
    assert picked.layers == (13, 13)
    assert (picked.layer_of == 13).all()
    assert np.array_equal(picked.score, scores[:, 13])
    outside = sh.pick_and_judge(scores, [2, 5, 19])
    assert set(outside.layers) <= {2, 5, 19}


@given(
    items=st.integers(2, 12), layers=st.integers(1, 6), data=st.data(), seed=st.integers(0, 1000), whole=st.booleans()
)
@settings(deadline=None, max_examples=80)
def test_every_item_is_judged_at_the_pick_of_the_half_it_is_not_in(items, layers, data, seed, whole):
    # Whole numbers tie often; the first of the best candidates is taken then.
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 3, (items, layers)).astype(float) if whole else rng.normal(size=(items, layers))
    candidates = data.draw(st.lists(st.integers(0, layers - 1), min_size=1, unique=True))
    half = np.array(data.draw(st.permutations([0, 1] + [seed % 2] * (items - 2))))
    picked = sh.pick_and_judge(scores, candidates, half)
    for h in (0, 1):
        means = {layer: sum(scores[i, layer] for i in range(items) if half[i] == h) for layer in candidates}
        best = max(means.values())
        assert picked.layers[h] in candidates
        assert means[picked.layers[h]] == pytest.approx(best, abs=1e-9)
        # No item has a say in its own layer: whatever the other half scores, this half's pick stays.
        other = scores.copy()
        other[half != h] = rng.normal(size=other[half != h].shape)
        assert sh.pick_and_judge(other, candidates, half).layers[h] == picked.layers[h]
    for item in range(items):
        layer = picked.layers[1 - half[item]]
        assert picked.layer_of[item] == layer
        assert picked.score[item] == scores[item, layer]


def test_halves_are_given_or_drawn_at_random_and_even():
    scores = np.zeros((7, 2))
    scores[:3, 0], scores[3:, 1] = 1, 1
    picked = sh.pick_and_judge(scores, [0, 1], half=np.array([0, 0, 0, 1, 1, 1, 1]))
    assert picked.layers == (0, 1)
    assert picked.layer_of.tolist() == [1, 1, 1, 0, 0, 0, 0]
    assert picked.score.tolist() == [0] * 7
    # Without halves: which items are in the one is read off scores that make the two halves pick differently.
    sizes, seen = set(), set()
    for seed in range(30):
        for item in range(7):
            alone = np.tile([0.0, 0.1], (7, 1))
            alone[item] = [9.0, 0.0]
            layers = sh.pick_and_judge(alone, [0, 1], seed=seed).layers
            assert sorted(layers) == [0, 1]
            seen.add((seed, item, layers.index(0)))
        sizes.add(sum(h for s, _, h in seen if s == seed))
    assert sizes == {3}
    assert len({tuple(sorted((i, h) for s, i, h in seen if s == seed)) for seed in range(30)}) > 10
    one, again = (sh.pick_and_judge(np.random.default_rng(0).normal(size=(9, 4)), range(4), seed=3) for _ in "ab")
    assert isinstance(one, Picked)
    assert one.layers == again.layers
    assert np.array_equal(one.layer_of, again.layer_of)


@given(p=st.lists(PROBABILITY, min_size=1, max_size=7))
@settings(deadline=None, max_examples=150)
def test_holm_is_the_closed_test_of_bonferroni(p):
    """A hypothesis falls if every set that holds it does; a set falls by its smallest p times its size."""
    expected = []
    for i in range(len(p)):
        others = [j for j in range(len(p)) if j != i]
        sets = [(i, *more) for k in range(len(p)) for more in itertools.combinations(others, k)]
        expected.append(max(min(1.0, len(s) * min(p[j] for j in s)) for s in sets))
    assert np.allclose(sh.holm(p), expected, rtol=1e-12, atol=0)


def test_holm_of_a_worked_example():
    assert np.allclose(sh.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    assert np.allclose(sh.holm([0.5, 0.6]), [1, 1])
    assert np.allclose(sh.holm([0.02]), [0.02])
    assert sh.holm([]).shape == (0,)


@given(p=st.lists(PROBABILITY, min_size=1, max_size=9), data=st.data())
@settings(deadline=None, max_examples=50)
def test_holm_keeps_the_order_and_is_never_below_p(p, data):
    corrected = sh.holm(p)
    assert (corrected >= p).all()
    assert (corrected <= 1).all()
    order = data.draw(st.permutations(range(len(p))))
    assert np.array_equal(sh.holm([p[i] for i in order]), corrected[order])


def test_holm_errs_in_no_more_than_5_of_100_families_of_true_nulls():
    p = np.random.default_rng(8).uniform(size=(2000, 10))
    assert np.mean([sh.holm(list(row)).min() < 0.05 for row in p]) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2000)


def test_too_few_items_or_samples_are_named():
    for n in (0, 1):
        with pytest.raises(ValueError, match=rf"n is {n}: an interval needs at least two items"):
            draw_weights(n)
        with pytest.raises(ValueError, match=rf"n is {n}: an interval needs at least two items"):
            sh.bootstrap(np.zeros((n, 3)))
    for times in (0, -2):
        with pytest.raises(ValueError, match=rf"times is {times}: draw at least one sample \(2,000"):
            draw_weights(5, times)
        with pytest.raises(ValueError, match=rf"times is {times}: draw at least one sample"):
            sh.bootstrap(np.zeros(5), times)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_counted(wrong):
    values = np.zeros((4, 3))
    values[1, 2] = values[3, 0] = wrong
    with pytest.raises(ValueError, match=r"2 of 12 values are not finite: leave those out"):
        sh.bootstrap(values)
    with pytest.raises(ValueError, match=r"2 of 12 values are not finite: leave those out"):
        sh.pick_and_judge(values, [0])


@pytest.mark.parametrize("level", [0, 1, -0.1, 95, float("nan")])
def test_a_level_that_is_no_share_is_named(level, untyped):
    with pytest.raises(ValueError, match=rf"level is {level}: give a share between 0 and 1, such as 0.95"):
        untyped(sh.interval)(np.arange(10.0), level)


def test_a_candidate_that_is_no_layer_is_named_with_the_range():
    scores = np.zeros((4, 3))
    with pytest.raises(ValueError, match=r"candidates has \[3, -1\]: give layers between 0 and 2"):
        sh.pick_and_judge(scores, [0, 3, -1])
    with pytest.raises(ValueError, match=r"candidates has nothing: give layers between 0 and 2"):
        sh.pick_and_judge(scores, [])


def test_halves_that_are_none_are_refused(untyped):
    scores = np.zeros((4, 3))
    for half in ([0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 2, 0], [0, 1, -1, 1], [0, 1], [[0, 1, 0, 1]]):
        with pytest.raises(ValueError, match=r"half must hold 0 or 1 for each of the 4 items, and both must occur"):
            untyped(sh.pick_and_judge)(scores, [0], np.array(half))
    with pytest.raises(ValueError, match=r"each of the 1 items, and both must occur"):
        sh.pick_and_judge(np.zeros((1, 3)), [0])


def test_p_values_outside_0_to_1_are_named():
    with pytest.raises(ValueError, match=r"p has \[1.2, -0.1\]: p-values lie between 0 and 1"):
        sh.holm([0.3, 1.2, -0.1])
    with pytest.raises(ValueError, match=r"p has \[nan\]: p-values lie between 0 and 1"):
        sh.holm([0.3, float("nan")])
