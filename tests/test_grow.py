"""Models grown from nothing: the training is what it says and goes on where it was; what is measured is there."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from semhub_utils import grow, world
from semhub_utils.grow import Plan

SMALL = Plan(width=16, blocks=3, steps=16)


@pytest.fixture(scope="module")
def grown():
    return grow.grow(SMALL, progress=False)


def test_the_loss_is_that_of_transformers_and_leaves_padding_out(grown):
    lm, _ = grown
    ids = grow.batch(SMALL, 0)
    assert (ids == 0).any()  # parallel documents are longer
    assert (ids[ids.ne(0).cumsum(1) == 0]).numel() == 0  # and end with it
    with torch.no_grad():
        assert grow.loss_of(lm.model, ids).item() == pytest.approx(
            lm.model(input_ids=ids, labels=ids.masked_fill(ids == 0, -100)).loss.item(), rel=1e-5
        )
        logp = lm.model.double()(input_ids=ids).logits.log_softmax(-1)
        lm.model.float()
    told = [-logp[i, j - 1, ids[i, j]] for i in range(len(ids)) for j in range(1, ids.shape[1]) if ids[i, j]]
    with torch.no_grad():
        assert grow.loss_of(lm.model, ids).item() == pytest.approx(torch.stack(told).mean().item(), rel=1e-5)


def test_the_rate_rises_and_falls_to_a_tenth():
    plan = replace(SMALL, steps=200)
    rates = [grow.rate(plan, step) for step in range(200)]
    assert rates[9] == rates[10] == grow.RATE == max(rates)
    assert rates[0] == pytest.approx(grow.RATE / 10)
    assert rates[105] == pytest.approx(0.55 * grow.RATE)
    assert rates[-1] == pytest.approx(grow.RATE / 10, rel=0.01)


def test_it_learns(grown):
    lm, rows = grown
    fresh = grow.new_model(SMALL)
    later = grow.batch(SMALL, 10**6)  # of the same world, never shown
    with torch.no_grad():
        assert grow.loss_of(lm.model, later) < grow.loss_of(fresh.model, later) - 0.5
    assert sorted(rows["step"].unique()) == [0, 2, 4, 6, 8, 10, 12, 14, 16]


def test_a_training_that_was_stopped_goes_on_to_the_same_numbers(grown, tmp_path, monkeypatch):
    lm, rows = grown
    measure, calls = grow.measure, []

    def stops(*given):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return measure(*given)

    monkeypatch.setattr(grow, "measure", stops)
    with pytest.raises(KeyboardInterrupt):
        grow.grow(SMALL, tmp_path / "kept.pt", progress=False)
    monkeypatch.undo()
    shown = []
    batch = grow.batch
    monkeypatch.setattr(grow, "batch", lambda plan, step: shown.append(step) or batch(plan, step))
    again, measured = grow.grow(SMALL, tmp_path / "kept.pt", progress=False)
    assert shown == list(range(6, 16))
    pd.testing.assert_frame_equal(measured, rows, check_exact=True)
    for name, weight in again.model.state_dict().items():
        assert torch.equal(weight, lm.model.state_dict()[name])
    with pytest.raises(ValueError, match=r"is a training of .* give another file"):
        grow.grow(replace(SMALL, seed=1), tmp_path / "kept.pt", progress=False)


def test_what_is_measured_is_what_plain_loops_find(grown):
    lm, rows = grown
    made = SMALL.world
    last = rows[rows["step"] == SMALL.steps].set_index(["measure", "asked", "layer"])["value"]
    model, number = lm.model.double(), made.number
    try:
        for asked, other in (("A", "B"), ("B", "A")):
            found = {name: [] for name in ("knows", "transfer", "lead", "mass", "says")}
            for fact in made.facts:
                ids = torch.tensor([[number[word] for word in made.question(fact, asked).split()]])
                with torch.no_grad():
                    states = model(input_ids=ids, output_hidden_states=True).hidden_states
                    final, middle = (
                        lm.head(state).log_softmax(-1)[0, -1] for state in (states[-1], model.model.norm(states[2]))
                    )
                own, others = (number[made.words[language][fact.value]] for language in (asked, other))
                right = final.argmax().item() in (own, number.get(fact.value))
                if asked in made.said[fact]:
                    found["knows"].append(right)
                else:
                    found["transfer"].append(right)
                if len(made.said[fact]) == 2:
                    rest = [v for v in world.RELATIONS[fact.relation] if v != fact.value]
                    usual = torch.stack([middle[number[made.words[other][v]]] for v in rest]).mean()
                    found["lead"].append(middle[others] - middle[own])
                    found["says"].append(middle[others] - usual)
                    found["mass"].append(sum(middle[number[w]].exp() for w in made.words[other].values()))
            mean = {name: sum(map(float, values)) / len(values) for name, values in found.items()}
            assert last["knows", asked, -1] == pytest.approx(mean["knows"])
            assert last["transfer", asked, -1] == pytest.approx(mean["transfer"])
            assert last["lead", asked, 2] == pytest.approx(mean["lead"], abs=1e-4)
            assert last[f"says {other}", asked, 2] == pytest.approx(mean["says"], abs=1e-4)
            assert last[f"mass {other}", asked, 2] == pytest.approx(mean["mass"], abs=1e-5)
    finally:
        lm.model.float()


def test_a_model_that_was_never_trained_shares_nothing_and_a_push_does_not_cross():
    lm = grow.new_model(SMALL)
    rows = grow.measure(lm, SMALL.world).set_index(["measure", "asked", "layer"])["value"]
    for layer in range(1, 4):
        assert abs(rows["similarity", "both", layer]) < 0.1
        assert rows["retrieval", "both", layer] < 0.15
    for language in "AB":
        assert rows["knows", language, -1] < 0.1
    effects = grow.crossing(lm, SMALL.world, pairs=3)
    across = effects[effects["taken"] != effects["asked"]]["effect"]
    assert abs(across.mean()) < 3 * across.std() / len(across) ** 0.5 + 1e-6


def test_a_model_whose_languages_are_one_shares_all(grown):
    # The words of B are given the embeddings of A's, and the questions of A are asked of both.
    lm, _ = grown
    made = SMALL.world
    weight = lm.model.get_input_embeddings().weight.detach().clone()
    try:
        with torch.no_grad():
            for meaning, word in made.words["A"].items():
                weight[made.number[made.words["B"][meaning]]] = weight[made.number[word]]
            kept = lm.model.get_input_embeddings().weight.detach().clone()
            lm.model.get_input_embeddings().weight.copy_(weight)

        class Same(type(made)):
            def question(self, fact, language):
                return super().question(fact, "A")

        same = Same(made.seed, made.languages)
        rows = grow.measure(lm, same).set_index(["measure", "asked", "layer"])["value"]
        assert rows["retrieval", "both", 2] > 0.9
        assert rows["lead", "B", 2] == pytest.approx(0, abs=1e-4)
        effects = grow.crossing(lm, same, pairs=2)
        table = effects.pivot_table(index="taken", columns="asked", values="effect")
        assert table.loc["A", "B"] > 0.8 * table.loc["A", "A"] > 0
    finally:
        with torch.no_grad():
            lm.model.get_input_embeddings().weight.copy_(kept)
