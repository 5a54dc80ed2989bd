import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import semhub_utils as sh
from semhub_utils import states
from semhub_utils.states import batches

TEXTS = ["The dog and the cat see a bird in the water.", "法国的首都是", "El perro", "Собака и кошка видят птицу"]
POSITIONS = ["last", "mean", 0, 1, -1, -2]
WORDS = ["dog", "the cat", "法国的首都", "Собака", "word", "1 + 2", "в воде", "for w in words"]


def expected(lm, text, position):
    """transformers' own hidden states of one text alone; its last row is normed."""
    ids = torch.tensor([lm.token_ids(text)[0]])
    with torch.no_grad():
        states = lm.model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
    states = torch.stack(states)[:, 0]
    if position == "mean":
        return states[:, 1:].mean(1) if states.shape[1] > 1 else states[:, 0]
    return states[:, -1 if position == "last" else position]


def normed(lm, state):
    with torch.no_grad():
        return lm.final_norm(state)


def close(a, b, tolerance=1e-5):
    return torch.allclose(a, b, rtol=0, atol=tolerance * float(b.abs().max()))


@pytest.mark.parametrize("position", POSITIONS)
def test_rows_are_transformers_own_hidden_states_and_the_last_is_not_normed(lm, position):
    got = sh.hidden_states(lm, TEXTS, position)
    assert got.shape == (len(TEXTS), lm.n_layers + 1, lm.d_model)
    for row, text in zip(got, TEXTS, strict=True):
        want = expected(lm, text, position)
        for k in range(lm.n_layers):
            assert close(row[k], want[k]), (text, k)
        if position != "mean":  # the norm of a mean is not the mean of the norms
            assert close(normed(lm, row[-1]), want[-1])
            assert not close(row[-1], want[-1], 0.05)


def test_the_last_row_of_a_mean_is_the_mean_of_the_last_block(lm):
    with sh.record(lm, lm.n_layers) as states:
        lm(TEXTS[:1])
    assert close(sh.hidden_states(lm, TEXTS[0], "mean")[0, -1], states[lm.n_layers][0, 1:].mean(0))


def test_row_0_is_the_embedding(llama):
    ids = llama.token_ids("The dog")[0]
    with torch.no_grad():
        embedding = llama.model.get_input_embeddings()(torch.tensor(ids))
    for position in range(len(ids)):
        assert torch.equal(sh.hidden_states(llama, "The dog", position)[0, 0], embedding[position])


@pytest.mark.parametrize("position", ["last", "mean"])
def test_rows_of_the_embedded_model_are_transformers_own(embedded_lm, position):
    texts = ["The dog sleeps", "法国的首都是"]
    got = sh.hidden_states(embedded_lm, texts, position)
    for row, text in zip(got, texts, strict=True):
        want = expected(embedded_lm, text, position)
        for k in range(embedded_lm.n_layers):
            assert close(row[k], want[k]), k
        if position == "last":
            assert close(normed(embedded_lm, row[-1]), want[-1])


@pytest.mark.parametrize("position", ["last", "mean", 1, -2])
def test_neither_the_batch_size_nor_the_side_of_padding_matters(lm, position, monkeypatch):
    texts = [*TEXTS, "in the water dog", "2 + 3", "la capital es", "for w in words:"]
    alone = sh.hidden_states(lm, texts, position, batch_size=1)
    for side in ("left", "right"):
        monkeypatch.setattr(lm.tokenizer, "padding_side", side)
        for batch_size in (3, 8, 100):
            assert close(sh.hidden_states(lm, texts, position, batch_size=batch_size), alone), (side, batch_size)


def test_the_batch_size_does_not_matter_to_the_embedded_model(embedded_lm):
    texts = ["The dog sleeps in the house of my friend", "猫", "Il pleut"]
    alone = sh.hidden_states(embedded_lm, texts, batch_size=1)
    assert close(sh.hidden_states(embedded_lm, texts, batch_size=3), alone, 1e-4)


@settings(deadline=None, max_examples=25)
@given(
    texts=st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join), min_size=1, max_size=9),
    batch_size=st.integers(1, 10),
    position=st.sampled_from(["last", "mean", 0, -1]),
)
def test_the_callers_order_is_kept(lm, texts, batch_size, position):
    got = sh.hidden_states(lm, texts, position, batch_size)
    for row, text in zip(got, texts, strict=True):
        assert close(row, sh.hidden_states(lm, text, position)[0])


@settings(deadline=None, max_examples=100)
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=40), batch_size=st.integers(1, 45))
def test_batches_hold_each_row_once_longest_first(lengths, batch_size):
    groups = list(batches([[0] * n for n in lengths], batch_size, progress=False))
    rows = [row for group in groups for row in group]
    assert sorted(rows) == list(range(len(lengths)))
    assert [lengths[row] for row in rows] == sorted(lengths, reverse=True)
    assert all(len(group) == batch_size for group in groups[:-1])
    assert 1 <= len(groups[-1]) <= batch_size


def test_a_text_of_one_token_is_its_own_mean(gpt2):
    assert len(gpt2.token_ids("a")[0]) == 1
    alone = sh.hidden_states(gpt2, "a", "last")
    assert close(sh.hidden_states(gpt2, ["a", "The dog and the cat"], "mean")[:1], alone)


def test_the_mean_leaves_the_first_token_out(gpt2):
    first = sh.hidden_states(gpt2, "dog and", 0)
    ids = gpt2.token_ids("dog and")[0]
    rest = torch.stack([sh.hidden_states(gpt2, "dog and", p) for p in range(1, len(ids))]).mean(0)
    mean = sh.hidden_states(gpt2, "dog and", "mean")
    assert close(mean, rest)
    assert not close(mean, (first + (len(ids) - 1) * rest) / len(ids), 0.05)


def test_a_str_is_one_text(lm):
    assert torch.equal(sh.hidden_states(lm, TEXTS[0]), sh.hidden_states(lm, TEXTS[:1]))


def test_states_are_float32_whatever_the_model_computes_in(llama_copy):
    exact = sh.hidden_states(llama_copy, TEXTS, "mean")
    llama_copy.model.to(torch.bfloat16)
    got = sh.hidden_states(llama_copy, TEXTS, "mean")
    assert got.dtype == torch.float32
    assert close(got, exact, 0.05)


def test_an_edit_around_the_call_is_in_the_states(lm):
    base = sh.hidden_states(lm, TEXTS)
    with sh.edit(lm, 2, lambda state: state + 3, positions="last"):
        got = sh.hidden_states(lm, TEXTS)
    assert torch.equal(got[:, :2], base[:, :2])
    assert torch.equal(got[:, 2], base[:, 2] + 3)
    assert not close(got[:, 3], base[:, 3], 0.01)


def test_progress_shows_nothing_on_short_work(llama, capsys):
    quiet = sh.hidden_states(llama, TEXTS, progress=False)
    assert torch.equal(sh.hidden_states(llama, TEXTS, progress=True), quiet)
    shown = capsys.readouterr()
    assert shown.out + shown.err == ""


def test_a_position_that_a_text_lacks_names_the_text_and_what_it_has(lm):
    texts = ["The dog and the cat see a bird", "dog"]
    n = len(lm.token_ids("dog")[0])
    for position in (n, -(n + 1)):
        with pytest.raises(ValueError, match=rf"position {position} is out of range: text 1 has {n} tokens"):
            sh.hidden_states(lm, texts, position)


def test_an_unknown_position_is_named(llama):
    for position in ("first", "all", True):
        with pytest.raises(
            ValueError, match=rf"position is {position!r}: give 'last', 'mean', 'image', 'audio' or a number"
        ):
            sh.hidden_states(llama, TEXTS, position)


def test_a_batch_size_that_is_no_count_is_named(llama):
    for batch_size in (0, -1, True):
        with pytest.raises(ValueError, match=rf"batch_size is {batch_size}: give 1 or more"):
            sh.hidden_states(llama, TEXTS, batch_size=batch_size)


def test_an_empty_text_is_named_by_its_place(llama):
    with pytest.raises(ValueError, match="text 1 is empty: every text needs at least one character"):
        sh.hidden_states(llama, ["dog", ""])
    with pytest.raises(ValueError, match="list of texts is empty: give at least one"):
        sh.hidden_states(llama, [])


def test_rows_are_moved_to_their_places_in_the_array_itself():
    places = [3, 0, 4, 1, 2]
    rows = np.arange(10.0).reshape(5, 2)
    expected = np.empty_like(rows)
    expected[places] = rows
    assert states._to_places(rows, places) is rows
    np.testing.assert_array_equal(rows, expected)
    assert places == [3, 0, 4, 1, 2]
