"""Subspaces against closed forms: what two forms share, what a draw of equal variance holds, what a removal leaves."""

import re

import numpy as np
import pytest
import torch
from hypothesis import example, given, reject, settings
from hypothesis import strategies as st

from semhub_utils import subspaces


def spd(width, seed=0):
    """A covariance with eigenvalues from 1 down to 0.01."""
    axes = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(seed)).double()).Q
    return axes @ torch.diag(torch.logspace(0, -2, width).double()) @ axes.T


def forms(items=4000, noise=1.0, seed=0):
    """Three forms: what they share lies along the first axis, what each has for itself along the others."""
    generator = torch.Generator().manual_seed(seed)
    states = noise * torch.randn(3, items, 6, generator=generator)
    states[:, :, 0] = 2 * torch.randn(items, generator=generator) + 0.5 * states[:, :, 0]
    return states + torch.tensor([1.0, 5.0, -3.0])[:, None, None]  # another mean for each


def test_shared_covariance_has_what_the_forms_have_in_common_and_no_noise():
    shared, within = subspaces.covariances(forms())
    assert shared[0, 0] == pytest.approx(4.0, rel=0.1)
    assert shared.diagonal()[1:].abs().max() < 0.05
    assert within.diagonal()[1:] == pytest.approx(np.ones(5), rel=0.1)
    assert within[0, 0] == pytest.approx(4.25, rel=0.1)


def test_shared_covariance_is_the_mean_over_pairs_of_forms():
    states = torch.randn(4, 9, 3, generator=torch.Generator().manual_seed(1)).double()
    centred = states - states.mean(1, keepdim=True)
    pairs = [centred[a].T @ centred[b] / 9 for a in range(4) for b in range(4) if a != b]
    shared, within = subspaces.covariances(states)
    torch.testing.assert_close(shared, torch.stack(pairs).mean(0))
    torch.testing.assert_close(within, torch.stack([centred[a].T @ centred[a] / 9 for a in range(4)]).mean(0))


@pytest.mark.parametrize("shape", [(1, 5, 3), (3, 1, 3)])
def test_one_form_or_one_item_is_refused(shape):
    with pytest.raises(ValueError, match="two or more forms"):
        subspaces.covariances(torch.zeros(shape))


def test_main_directions_are_the_largest_first():
    found = subspaces.main_directions(torch.diag(torch.tensor([1.0, 9.0, 4.0])), 2)
    torch.testing.assert_close(found.abs(), torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))


def test_share_of_known_variance():
    covariance = torch.diag(torch.tensor([6.0, 3.0, 1.0]))
    assert subspaces.share(torch.eye(3)[:2], covariance) == pytest.approx(0.9)
    assert subspaces.share(torch.eye(3), covariance) == pytest.approx(1.0)


@settings(max_examples=30, deadline=None)
@given(k=st.integers(1, 6), part=st.floats(0.1, 0.9), seed=st.integers(0, 10_000))
@example(k=1, part=0.75, seed=185)
def test_random_directions_hold_the_wanted_share(k, part, seed):
    covariance = spd(12)
    most = subspaces.share(subspaces.main_directions(covariance, k), covariance)
    wanted = k / 12 + part * (0.9 * most - k / 12)
    try:
        found = subspaces.random_directions(covariance, k, wanted, seed)
    except ValueError as error:  # a draw that lies nearly across the main directions: it must say so truly
        low, high = map(float, re.findall(r"between ([\d.]+) and ([\d.]+)", str(error))[0])
        assert not low <= wanted <= high
        reject()
    assert subspaces.share(found, covariance) == pytest.approx(wanted, abs=2e-3)
    torch.testing.assert_close(found @ found.T, torch.eye(k), atol=1e-5, rtol=0)


def test_random_directions_without_a_share_are_alike_in_all_directions():
    covariance = spd(40)
    held = [subspaces.share(subspaces.random_directions(covariance, 4, seed=s), covariance) for s in range(200)]
    assert np.mean(held) == pytest.approx(0.1, abs=0.01)


def test_a_draw_is_its_seed_and_another_seed_another_draw():
    covariance = spd(12)
    one, same, other = (subspaces.random_directions(covariance, 3, 0.4, seed) for seed in (1, 1, 2))
    torch.testing.assert_close(one, same)
    assert (one @ other.T).abs().max() < 0.999


def test_a_share_that_cannot_be_had_is_refused_with_what_can():
    covariance = spd(12)
    with pytest.raises(ValueError, match="lies between"):
        subspaces.random_directions(covariance, 2, 0.999)


@pytest.mark.parametrize("k", [0, 4, True])
def test_a_number_of_directions_that_is_none_is_refused(k):
    with pytest.raises(ValueError, match="give 1 to 3"):
        subspaces.main_directions(torch.eye(3), k)


def test_removal_leaves_the_mean_along_the_directions_and_all_else():
    mean, spread = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 10.0, 0.5])
    state = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    removed = subspaces.removing(torch.tensor([[0.0, 1.0, 0.0]]), mean, spread)(state)
    torch.testing.assert_close(removed[..., 1], torch.full((2, 4), 2.0))
    torch.testing.assert_close(removed[..., [0, 2]], state[..., [0, 2]])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_removal_in_the_standardised_space(seed):
    generator = torch.Generator().manual_seed(seed)
    v = torch.linalg.qr(torch.randn(5, 2, generator=generator)).Q.T
    mean, spread = torch.randn(5, generator=generator), torch.rand(5, generator=generator) + 0.1
    state = torch.randn(3, 2, 5, generator=generator)
    remove = subspaces.removing(v, mean, spread)
    after = (remove(state) - mean) / spread
    assert (after @ v.T).abs().max() < 1e-4  # nothing along the directions
    outside = torch.eye(5) - v.T @ v
    torch.testing.assert_close(after @ outside, (state - mean) / spread @ outside, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(remove(remove(state)), remove(state), atol=1e-4, rtol=1e-4)


def test_a_vector_is_the_sum_of_its_parts():
    v = torch.linalg.qr(torch.randn(6, 2, generator=torch.Generator().manual_seed(3))).Q.T
    vector = torch.arange(6.0)
    inside, outside = subspaces.parts(vector, v)
    torch.testing.assert_close(inside + outside, vector)
    assert abs(float(inside @ outside)) < 1e-4
    assert (outside @ v.T).abs().max() < 1e-5
