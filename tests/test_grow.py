"""Models grown from nothing: the training is what it says and goes on where it was; what is measured is there."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from semhub_utils import grow, world
from semhub_utils.grow import Plan
from semhub_utils.steering import random_vector

SMALL = Plan(width=16, blocks=3, steps=16)


@pytest.fixture(scope="module")
def grown():
    return grow.grow(SMALL, progress=False)


def test_the_loss_is_that_of_transformers_and_of_a_plain_sum(grown):
    lm, _ = grown
    ids = grow.batch(SMALL, 0)
    with torch.no_grad():
        found = grow.loss_of(lm.model, ids).item()
        assert found == pytest.approx(lm.model(input_ids=ids, labels=ids).loss.item(), rel=1e-5)
        logp = lm.model.double()(input_ids=ids).logits.log_softmax(-1)
        lm.model.float()
    told = [-logp[i, j - 1, ids[i, j]] for i in range(len(ids)) for j in range(1, ids.shape[1])]
    assert found == pytest.approx(torch.stack(told).mean().item(), rel=1e-5)


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
            found = {name: [] for name in ("knows", "transfer", "mass", "says")}
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
                    rest = [v for v in world.LASTING[fact.relation] if v != fact.value]
                    usual = torch.stack([middle[number[made.words[other][v]]] for v in rest]).mean()
                    found["says"].append(middle[others] - usual)
                    found["mass"].append(sum(middle[number[w]].exp() for w in made.words[other].values()))
            mean = {name: sum(map(float, values)) / len(values) for name, values in found.items()}
            assert last["knows", asked, -1] == pytest.approx(mean["knows"])
            assert last["transfer", asked, -1] == pytest.approx(mean["transfer"])
            assert last[f"says {other}", asked, 2] == pytest.approx(mean["says"], abs=1e-4)
            assert last[f"mass {other}", asked, 2] == pytest.approx(mean["mass"], abs=1e-5)
    finally:
        lm.model.float()


def test_the_likeness_is_that_of_the_states_less_the_mean_of_their_relation(grown):
    lm, rows = grown
    made = SMALL.world
    last = rows[rows["step"] == SMALL.steps].set_index(["measure", "asked", "layer"])["value"]
    states = {}
    for language in "AB":
        every = [lm.model(**lm.encode(made.question(f, language)), output_hidden_states=True) for f in made.facts]
        stacked = torch.stack([one.hidden_states[1][0, -1].detach().double() for one in every])
        for relation in world.LASTING:
            own = torch.tensor([fact.relation == relation for fact in made.facts])
            stacked[own] -= stacked[own].mean(0)
        kept = stacked[torch.tensor([len(made.said[fact]) == 2 for fact in made.facts])]
        kept = kept - kept.mean(0)
        states[language] = kept / kept.norm(dim=1, keepdim=True)
    cosine = states["A"] @ states["B"].T
    others = (cosine.sum() - cosine.trace()) / (cosine.numel() - len(cosine))
    assert last["similarity", "both", 1] == pytest.approx(float(cosine.diagonal().mean() - others), abs=1e-4)


def test_a_file_that_is_no_training_is_named(tmp_path):
    spoiled = tmp_path / "kept.pt"
    spoiled.write_bytes(b"half of a file")
    with pytest.raises(ValueError, match=r"kept.pt holds no training .* delete it"):
        grow.grow(SMALL, spoiled, progress=False)
    assert spoiled.read_bytes() == b"half of a file"


@pytest.mark.parametrize("given", [{"width": 30}, {"blocks": 0}, {"steps": 3}])
def test_a_size_that_no_model_has_is_refused(given):
    with pytest.raises(ValueError, match="give a multiple of 8, at least 1, and at least 8"):
        replace(SMALL, **given)


def test_a_model_that_was_never_trained_shares_nothing_and_a_push_does_not_cross():
    lm = grow.new_model(SMALL)
    rows = grow.measure(lm, SMALL.world).set_index(["measure", "asked", "layer"])["value"]
    for layer in range(1, 4):
        assert rows["similarity", "both", layer] < 2 * rows["similarity null", "both", layer]
        assert rows["retrieval", "both", layer] < 2 * rows["retrieval null", "both", layer]
    for language in "AB":
        assert rows["knows", language, -1] < 0.1
    effects = grow.crossing(lm, SMALL.world, pairs=4)
    across = effects[effects["taken"] != effects["asked"]]["effect"]
    assert abs(across.mean()) < 3 * across.std() / len(across) ** 0.5 + 1e-6


def test_a_model_whose_languages_are_one_shares_all(grown, monkeypatch):
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
        # A push out of either moves either as far, once the random vector that is subtracted is the same one.
        monkeypatch.setattr(grow, "random_vector", lambda vector, seed: random_vector(vector, 0))
        effects = grow.crossing(lm, same, pairs=2)
        table = effects.pivot_table(index="taken", columns="asked", values="effect").to_numpy()
        assert abs(table).max() > 1e-3
        assert table == pytest.approx(table[0, 0], abs=1e-5)
    finally:
        with torch.no_grad():
            lm.model.get_input_embeddings().weight.copy_(kept)
