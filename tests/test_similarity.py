"""Every measure against a plain double loop, and what it says of planted pairs, of noise and of a crowded space."""

import math
import re

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import semhub_utils as sh
from semhub_utils.resampling import draw_weights
from semhub_utils.similarity import MEASURES, _layers, _measures, _under_shuffles, shuffled

SIZES = {"n": st.integers(2, 7), "layers": st.integers(1, 3), "d": st.integers(1, 6), "seed": st.integers(0, 10**6)}
CLOSE = {"rtol": 0, "atol": 1e-9}
QUICK = {"samples": 20, "shuffles": 39}


def noise(n, layers, d, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, n, layers, d, generator=generator).double().unbind(0)


def planted(n=24, layers=3, d=16, spread=0.2, seed=0):
    a, b = noise(n, layers, d, seed)
    return a, a + spread * b


def cosine(x, y):
    length = math.sqrt(sum(u * u for u in x)) * math.sqrt(sum(v * v for v in y))
    return sum(u * v for u, v in zip(x, y, strict=True)) / length if length else 0.0


def minus_mean(rows):
    mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    return [[u - m for u, m in zip(row, mean, strict=True)] for row in rows]


def loops(a, b, layer, drawn=None):
    """Every measure by its definition, in plain Python; `drawn` lists items with their repetitions."""
    x, y = a[:, layer].tolist(), b[:, layer].tolist()
    drawn = list(range(len(x))) if drawn is None else drawn
    out = {}
    for name, left, right in (("raw", x, y), ("centred", minus_mean(x), minus_mean(y))):
        s = [[cosine(u, v) for v in right] for u in left]
        own = [s[i][i] for i in drawn]
        other = [s[i][j] for i in drawn for j in drawn if i != j]
        out[name] = sum(own) / len(own), sum(other) / len(other)
        hits = [all(s[i][i] > s[i][j] + 1e-12 for j in range(len(x)) if j != i) for i in drawn]
    matched, baseline = out["raw"]
    values = [matched, baseline, matched - baseline, out["centred"][0] - out["centred"][1], sum(hits) / len(hits)]
    return dict(zip(MEASURES, values, strict=True))


def table(frame, column):
    return frame.pivot(index="layer", columns="measure", values=column)[list(MEASURES)]


@given(**SIZES)
@settings(deadline=None, max_examples=30)
def test_every_measure_is_the_double_loop(n, layers, d, seed):
    a, b = noise(n, layers, d, seed)
    b = b + 0.7 * a
    got = table(sh.similarity(a, b, samples=20, shuffles=2), "value")
    for layer in range(layers):
        for measure, value in loops(a, b, layer).items():
            assert got.loc[layer, measure] == pytest.approx(value, abs=1e-9), measure


@given(**SIZES)
@settings(deadline=None, max_examples=30)
def test_items_average_to_the_measure(n, layers, d, seed):
    a, b = noise(n, layers, d, seed)
    b = b + 0.7 * a
    for measure in set(MEASURES) - {"baseline"}:
        scores = sh.item_scores(a, b, measure)
        assert scores.shape == (n, layers)
        expected = [loops(a, b, layer)[measure] for layer in range(layers)]
        assert np.allclose(scores.mean(0), expected, **CLOSE), measure


def test_an_items_score_is_its_cosine_less_the_others_of_its_row_and_column():
    a, b = planted(5, 2, 4, spread=1.0)
    s = [[cosine(u, v) for v in b[:, 1].tolist()] for u in a[:, 1].tolist()]
    others = [np.mean([[s[i][j], s[j][i]] for j in range(5) if j != i]) for i in range(5)]
    expected = s[2][2] - 2 * others[2] + np.mean(others)
    assert sh.item_scores(a, b, "adjusted")[2, 1] == pytest.approx(expected, abs=1e-9)
    assert set(np.unique(sh.item_scores(a, b))) <= {0.0, 1.0}


@given(**SIZES)
@settings(deadline=None, max_examples=30)
def test_a_bootstrap_value_is_that_of_the_items_drawn_whose_copies_are_never_a_wrong_pair(n, layers, d, seed):
    a, b = noise(n, layers, d, seed)
    b = b + 0.7 * a
    weights = draw_weights(n, 6, seed)
    drawn = [[i for i, count in enumerate(row) for _ in range(count)] for row in weights]
    for layer, (raw, centred) in enumerate(_layers(a, b)):
        got = _measures(raw, centred, torch.from_numpy(weights).double())
        for sample, items in enumerate(drawn):
            if len(set(items)) > 1:
                for measure, value in loops(a, b, layer, items).items():
                    assert got[measure][sample].item() == pytest.approx(value, abs=1e-9), measure


def test_the_interval_is_that_of_the_bootstrap_values_and_one_item_alone_is_left_out():
    a, b = planted(3, 2, 4, spread=1.0)
    frame = sh.similarity(a, b, samples=200, shuffles=2, seed=5)
    drawn = [[i for i, count in enumerate(row) for _ in range(count)] for row in draw_weights(3, 200, 5)]
    assert any(len(set(items)) == 1 for items in drawn)
    low, high = table(frame, "low"), table(frame, "high")
    for layer in (0, 1):
        values = pd.DataFrame([loops(a, b, layer, items) for items in drawn if len(set(items)) > 1])
        assert np.allclose(low.loc[layer], values[list(MEASURES)].quantile(0.025), **CLOSE)
        assert np.allclose(high.loc[layer], values[list(MEASURES)].quantile(0.975), **CLOSE)
    two = sh.similarity(a[:2], b[:2], **QUICK)
    assert two[["value", "low", "high"]].notna().all(axis=None)


@given(**SIZES)
@settings(deadline=None, max_examples=30)
def test_the_null_is_the_measure_of_the_partners_dealt_out(n, layers, d, seed):
    a, b = noise(n, layers, d, seed)
    shuffled = torch.stack([torch.randperm(n) for _ in range(4)])
    for layer, (raw, centred) in enumerate(_layers(a, b)):
        null = _under_shuffles(raw, centred, shuffled)
        for shuffle, order in enumerate(shuffled):
            expected = loops(a, b[order], layer)
            for measure, values in null.items():
                assert values[shuffle].item() == pytest.approx(expected[measure], abs=1e-9), measure


def test_planted_pairs_are_found():
    frame = sh.similarity(*planted(), samples=50, shuffles=199)
    tested = frame[frame.measure != "baseline"]
    assert set(tested.p) == {1 / 200}
    assert (tested.value > tested.null_high).all()
    assert (frame[frame.measure == "retrieval"].value == 1).all()
    assert (sh.item_scores(*planted()) == 1).all()
    assert (sh.nearest(*planted()) == np.arange(24)[:, None]).all()


def test_shuffled_rows_of_planted_pairs_show_nothing():
    a, b = planted()
    order = torch.arange(24).roll(7)
    frame = sh.similarity(a, b[order], samples=20, shuffles=199)
    assert frame.p.min() > 0.05
    assert (frame[frame.measure == "retrieval"].value == 0).all()
    assert (sh.nearest(a, b[order]) == order.argsort().numpy()[:, None]).all()


@pytest.mark.parametrize("crowd", [0, 8], ids=["isotropic", "anisotropic"])
def test_noise_is_found_in_no_more_than_5_of_100_whatever_the_space_and_layers(crowd):
    """A large vector in all states lifts every cosine and pairs nothing; any of the three layers may raise an alarm."""
    seeds, smallest, single = 160, [], []
    for seed in range(seeds):
        a, b = (form + crowd for form in noise(12, 3, 8, seed))
        frame = sh.similarity(a, b, samples=2, shuffles=39, seed=seed)
        if crowd:
            assert (frame[frame.measure == "matched"].value > 0.9).all()
            assert (frame[frame.measure == "baseline"].value > 0.9).all()
        smallest.append(frame.groupby("measure").p.min())
        single.append(sh.similarity(a[:, :1], b[:, :1], samples=2, shuffles=39, seed=seed).set_index("measure").p)
    # With 39 shuffles, 0.05 is reached with probability 0.05. The bound: the mean and 3.5 deviations.
    bound = seeds * 0.05 + 3.5 * math.sqrt(seeds * 0.05 * 0.95)
    assert ((pd.DataFrame(smallest) <= 0.05).sum() <= bound).all()
    one = pd.DataFrame(single)
    for measure in ("matched", "adjusted", "centred"):
        assert one[measure].mean() == pytest.approx(0.5 + 1 / 80, abs=3.5 * math.sqrt(1 / 12 / seeds))
        assert np.histogram(one[measure], bins=4, range=(0, 1))[0].min() > seeds / 4 - 3.5 * math.sqrt(seeds * 3 / 16)
    assert one.retrieval.mean() > 0.5  # it comes in steps of 1/12, so that ties with the null are many


def test_a_crowded_space_has_high_raw_cosines_and_shows_nothing_else():
    frames = [sh.similarity(*(x + 10 for x in noise(60, 2, 20, seed)), samples=2, shuffles=99) for seed in range(20)]
    frame = pd.concat(frames, keys=range(20), names=["seed", None]).reset_index("seed").set_index("measure")
    assert (frame.loc["matched"].value > 0.9).all()
    assert (frame.loc["adjusted"].value.abs() < 0.01).all()
    assert (frame.loc["centred"].value.abs() < 0.1).all()
    assert (frame.loc["retrieval"].value < 0.15).all()
    # Five or more alarms of twenty come with probability 0.003.
    assert (frame[frame.p <= 0.05].groupby("measure").seed.nunique() < 5).all()


def test_a_vector_added_to_all_states_changes_raw_cosines_and_no_centred_measure():
    a, b = planted(12, 2, 8, spread=1.0)
    one, other = sh.similarity(a, b, **QUICK), sh.similarity(a + 5, b - 3, **QUICK)
    raw = one.measure.isin(["matched", "baseline", "adjusted"])
    assert ((one.value - other.value).abs()[raw] > 0.1).all()
    pd.testing.assert_frame_equal(one[~raw], other[~raw], rtol=0, atol=1e-9)


def test_the_scale_of_states_does_not_matter():
    a, b = planted(12, 2, 8, spread=1.0)
    one = sh.similarity(a, b, **QUICK)
    pd.testing.assert_frame_equal(one, sh.similarity(1e4 * a, 1e-3 * b, **QUICK), rtol=0, atol=1e-9)
    lengths = torch.linspace(0.1, 50, 12)[:, None, None]
    each = sh.similarity(a * lengths, b / lengths, **QUICK)
    raw = one.measure.isin(["matched", "baseline", "adjusted"])
    pd.testing.assert_frame_equal(one[raw], each[raw], rtol=0, atol=1e-9)


def test_the_order_of_items_does_not_matter_and_that_of_forms_only_to_retrieval():
    a, b = planted(12, 2, 8, spread=1.5)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    one = table(sh.similarity(a, b, **QUICK), "value")
    assert np.allclose(one, table(sh.similarity(a[order], b[order], **QUICK), "value"), **CLOSE)
    turned = table(sh.similarity(b, a, **QUICK), "value")
    assert np.allclose(one.drop(columns="retrieval"), turned.drop(columns="retrieval"), **CLOSE)
    assert (one.retrieval != turned.retrieval).any(), "the nearest of b to a is not the nearest of a to b"


@given(n=st.integers(3, 40), d=st.integers(1, 70), kinds=st.integers(1, 3), seed=st.integers(0, 10**6))
@settings(deadline=None, max_examples=60)
def test_a_tie_is_no_hit_however_it_is_rounded(n, d, kinds, seed):
    """Equal states, such as the embeddings of a full stop, cannot score: every kind here has two items or more."""
    a, b = noise(n, 1, d, seed)
    kind = torch.arange(n) % min(kinds, n // 2)
    for left in (a, b[kind]):
        assert (sh.item_scores(left, 30 * b[kind]) == 0).all()
        frame = sh.similarity(left, b[kind], samples=2, shuffles=5)
        assert (frame[frame.measure == "retrieval"][["value", "high", "null_high"]] == 0).all(axis=None)
        assert (frame[frame.measure == "retrieval"].p == 1).all()


def test_a_state_at_the_mean_has_no_direction_and_hits_nothing():
    a = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1], [0, 0]])[:, None].double() + 3
    assert sh.item_scores(a, a)[:, 0].tolist() == [1, 1, 1, 1, 0]
    # Its own cosines are all 0; what is left is the baseline: the four others have -1/4 on average, it has 0.
    assert sh.item_scores(a, a, "centred")[4, 0] == pytest.approx(-1 / 5, abs=1e-12)


def test_the_null_is_the_highest_of_all_layers():
    a, b = noise(15, 4, 8, 2)
    a[:, 2], b[:, 2] = a[:, 2] + 3, b[:, 2] + 3
    frame = sh.similarity(a, b, samples=2, shuffles=99, seed=1)
    own = pd.concat([sh.similarity(a[:, [k]], b[:, [k]], samples=2, shuffles=99, seed=1) for k in range(4)])
    own.index = frame.index
    assert (frame.groupby("measure").null_high.nunique()[lambda x: x.index != "baseline"] == 1).all()
    tested = frame.measure != "baseline"
    assert (frame[tested].null_high >= own[tested].null_high - 1e-12).all()
    assert (frame[tested].p >= own[tested].p - 1e-12).all()
    assert (frame[tested].p > own[tested].p).any()
    # In full, for one measure.
    rng = np.random.default_rng(2)
    shuffled = torch.from_numpy(np.stack([rng.permutation(15) for _ in range(99)]))
    highest = torch.stack([_under_shuffles(*pair, shuffled)["centred"] for pair in _layers(a, b)]).amax(0)
    centred = frame[frame.measure == "centred"]
    assert np.allclose(centred.null_high, np.quantile(highest, 0.95), **CLOSE)
    assert np.allclose(centred.p, [(1 + int((highest >= v).sum())) / 100 for v in centred.value], **CLOSE)


def test_the_frame_is_tidy_seeded_and_takes_float32_as_it_comes():
    a, b = (form.float() for form in planted(10, 3, 6, spread=1.0))
    frame = sh.similarity(a, b, **QUICK)
    assert list(frame.columns) == ["layer", "measure", "value", "low", "high", "null_high", "p"]
    assert list(zip(frame.layer, frame.measure, strict=True)) == [(k, m) for k in range(3) for m in MEASURES]
    assert frame[["null_high", "p"]].isna().all(axis=1).equals(frame.measure == "baseline")
    pd.testing.assert_frame_equal(frame, sh.similarity(a, b, **QUICK, seed=0))
    other = sh.similarity(a, b, **QUICK, seed=1)
    assert (frame.value == other.value).all()
    assert (frame[["low", "null_high"]] != other[["low", "null_high"]]).any().all()
    pd.testing.assert_frame_equal(frame, sh.similarity(a.double(), b.double(), **QUICK), rtol=0, atol=1e-9)


@pytest.mark.parametrize("call", [sh.similarity, sh.item_scores, sh.nearest])
def test_states_that_do_not_pair_up_are_refused_with_what_is_wrong(call, untyped):
    call = untyped(call)
    a, b = noise(4, 3, 5)
    for wrong in (b[:3], b[:, :2], b[:, :, :4], b[:, 0]):
        shapes = re.escape(f"a is (4, 3, 5) and b is {tuple(wrong.shape)}: give two arrays of items by layers")
        with pytest.raises(ValueError, match=shapes):
            call(a, wrong)
    with pytest.raises(ValueError, match=r"a is \(4, 5\) and b is \(4, 5\): give two arrays"):
        call(a[:, 0], b[:, 0])
    with pytest.raises(ValueError, match="there are 1 items: a baseline of other pairs needs at least two"):
        call(a[:1], b[:1])
    for value in (torch.nan, torch.inf):
        broken = b.clone()
        broken[2, 1, 3] = broken[3, 0, 0] = value
        with pytest.raises(ValueError, match=r"^b has a state that is not finite, the first in item 2"):
            call(a, broken)
    broken = a.clone()
    broken[1, 2] = 0
    with pytest.raises(ValueError, match=r"^a has a state of zeros, the first in item 1: it has no direction"):
        call(broken, b)


def test_a_measure_without_items_and_counts_below_1_are_named():
    a, b = noise(4, 1, 5)
    for measure in ("baseline", "cosine"):
        with pytest.raises(ValueError, match=rf"measure is '{measure}': give one of matched, adjusted, centred, retr"):
            sh.item_scores(a, b, measure)
    for samples, shuffles in ((0, 9), (9, 0)):
        with pytest.raises(
            ValueError, match=rf"samples is {samples} and shuffles {shuffles}: draw one of each or more"
        ):
            sh.similarity(a, b, samples, shuffles)


def test_an_interval_from_the_scores_of_items_is_as_wide_as_that_of_the_measure():
    # Items in a crowd of very uneven density: what others an item has matters as much as its partner.
    generator = torch.Generator().manual_seed(3)
    crowd = torch.randn(1, 1, 24, generator=generator) * torch.linspace(0.2, 3, 90)[:, None, None]
    a, b = (crowd + torch.randn(90, 1, 24, generator=generator) for _ in range(2))
    frame = sh.similarity(a, b, samples=3000, shuffles=2).set_index("measure")
    for measure in ("matched", "adjusted", "centred", "retrieval"):
        low, high = sh.interval(sh.bootstrap(sh.item_scores(a, b, measure)[:, 0], times=3000))
        wide = frame.high[measure] - frame.low[measure]
        assert high - low == pytest.approx(wide, rel=0.12), measure


def test_states_that_carry_a_gradient_or_are_no_tensors():
    a, b = noise(6, 2, 4, 0)
    assert np.array_equal(sh.item_scores(a.requires_grad_(), b), sh.item_scores(a.detach(), b))
    with pytest.raises(ValueError, match="2 items are too few for an interval from 1 samples"):
        sh.similarity(a.detach()[:2], b[:2], samples=1, seed=3)


def test_the_null_of_one_measure_is_that_measure_on_partners_dealt_anew():
    a, b = planted(n=7, spread=0.5)
    deals = np.random.default_rng(3)
    for found in shuffled(a, b, times=4, seed=3):
        dealt = b[torch.from_numpy(deals.permutation(7))]
        assert np.allclose(found, sh.item_scores(a, dealt, "centred").mean(0), **CLOSE)


def test_pairs_of_forms_are_dealt_alike_so_that_the_null_of_their_mean_is_the_mean_of_their_nulls():
    a, b = planted(n=12)
    assert np.array_equal(shuffled(a, b, times=5, seed=1), shuffled(a, b, times=5, seed=1))
    assert not np.array_equal(shuffled(a, b, times=5, seed=1), shuffled(a, b, times=5, seed=2))
    with pytest.raises(ValueError, match="times is 0: deal at least once"):
        shuffled(a, b, times=0)
