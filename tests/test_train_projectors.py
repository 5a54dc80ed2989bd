"""Training of the projectors: its loss, its control, its resuming; and what the committed weights were judged to be."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import judge_projectors as judge
import train_projectors as tool
from semhub_utils import stitched
from semhub_utils.data.controls import projector_ranks, projector_table
from today import TODAY

NAMES = ["dog", "the cat", "bird", "water", "the dog sees a bird", "cat", "fox", "the lazy dog"]


@pytest.fixture
def small(monkeypatch, tmp_path, llama):
    """Eight made-up pictures and a random model, in place of the real ones."""
    frame = pd.DataFrame({"concept": NAMES, "source": "made", "file": ""})
    seen = torch.randn(len(NAMES), tool.BEST.copies, 4, 10, generator=torch.Generator().manual_seed(0)).half()
    monkeypatch.setattr(tool, "training_pictures", lambda: frame)
    monkeypatch.setattr(tool, "features", lambda frame, copies: seen)
    monkeypatch.setattr(tool, "word_length", lambda lm: 1.5)
    monkeypatch.setattr(tool, "BATCH", 4)
    monkeypatch.setattr(tool, "KEEP_EVERY", 3)
    monkeypatch.setattr(tool, "RECIPES", {name: replace(one, steps=9) for name, one in tool.RECIPES.items()})
    monkeypatch.setenv("SEMHUB_CACHE", str(tmp_path))
    return llama


@pytest.mark.parametrize("name", ["trained", "trial"])
def test_a_run_that_is_stopped_goes_on_to_the_same_weights(small, name, monkeypatch, tmp_path):
    whole = tool.Run(name, small)
    whole.train()
    whole.kept.unlink()
    loss = tool.Run.loss

    def stop_at_seven(self, step):
        if step == 7:
            raise KeyboardInterrupt
        return loss(self, step)

    monkeypatch.setattr(tool.Run, "loss", stop_at_seven)
    with pytest.raises(KeyboardInterrupt):
        tool.Run(name, small).train()
    done = []
    monkeypatch.setattr(tool.Run, "loss", lambda self, step: done.append(step) or loss(self, step))
    again = tool.Run(name, small)
    again.train()
    assert done == [6, 7, 8]
    assert again.losses == whole.losses
    for key, value in whole.weights().items():
        assert torch.equal(again.weights()[key], value), key
    assert not torch.equal(whole.weights()["weight"], tool.Run(name, small).weights()["weight"])


def test_the_saved_map_is_the_one_that_was_trained(small):
    run = tool.Run("trained", small)
    run.train()
    x = run.seen[:, 0].float()
    own = stitched.Projector.soft((x - run.mean) / run.spread, run.map, run.bias, run.length)
    held = run.weights()
    saved = stitched.Projector(held["weight"], held["bias"], float(held["length"]))(x)
    torch.testing.assert_close(saved, own, atol=5e-3, rtol=0)  # half precision


def test_the_loss_is_that_of_the_names_tokens_and_of_nothing_else(llama):
    soft = torch.randn(3, 2, llama.d_model, generator=torch.Generator().manual_seed(0))
    names = ["dog", "the lazy dog", "cat"]
    found = tool.name_loss(llama, soft, " sees", names)
    embed, lost = llama.model.get_input_embeddings(), []
    for one, name in zip(soft, names, strict=True):
        before, ids = llama.cut([" sees"], special=False)[0], llama.cut([f" {name}"], special=False)[0]
        rows = [embed(torch.tensor([llama.tokenizer.bos_token_id])), one, embed(torch.tensor(before + ids))]
        logits = llama.model(inputs_embeds=torch.cat(rows)[None], use_cache=False).logits[0].double().log_softmax(-1)
        first = 1 + len(one) + len(before)
        lost += [-logits[first - 1 + i, token].item() for i, token in enumerate(ids)]
    assert found.item() == pytest.approx(np.mean(lost), abs=1e-4)


def test_shuffled_names_are_the_same_names_dealt_out_by_concept(small, monkeypatch):
    frame = pd.DataFrame({"concept": [*NAMES, "dog"], "source": "made", "file": ""})
    monkeypatch.setattr(tool, "training_pictures", lambda: frame)
    monkeypatch.setattr(tool, "features", lambda frame, copies: torch.randn(len(frame), copies, 4, 10))
    run = tool.Run("shuffled", small)
    assert sorted(set(run.names)) == sorted(NAMES)
    assert run.names[0] == run.names[-1]
    assert sum(a == b for a, b in zip(run.names, frame.concept, strict=True)) <= 2
    assert tool.Run("trained", small).names == frame.concept.tolist()


def test_features_are_brought_to_unit_variance():
    seen = torch.randn(200, 4, 6) @ torch.randn(6, 6) + 3
    mean, spread = tool.mean_and_spread(seen)
    x = ((seen - mean) / spread).flatten(0, 1)
    torch.testing.assert_close(x.std(0), torch.ones(6), atol=1e-4, rtol=0)
    torch.testing.assert_close(x.mean(0), torch.zeros(6), atol=1e-4, rtol=0)


def test_a_changed_picture_is_another_view_of_the_same():
    from PIL import Image

    picture = Image.new("RGBA", (224, 224), (255, 0, 0, 255))
    views = [np.asarray(tool.changed(picture, np.random.default_rng(seed))) for seed in range(4)]
    assert all(view.shape == (224, 224, 3) for view in views)
    assert len({view.tobytes() for view in views}) == 4
    red = [(view[..., 0] > 120) & (view[..., 1] < 80) for view in views]
    assert all(0.2 < mask.mean() <= 1 for mask in red)


@pytest.mark.parametrize("name", stitched.PROJECTORS)
def test_the_committed_weights_are_those_of_their_card(name):
    path = stitched.projector_file(name)
    card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert card["encoder"] == stitched.SHA256
    assert card["recipe"]["shuffled"] == (name == "shuffled")
    assert path.stat().st_size < 2e6


def test_the_controls_were_trained_as_the_projector_was():
    cards = {name: stitched.projector_file(name).with_suffix(".json") for name in stitched.PROJECTORS}
    recipes = {name: json.loads(card.read_text(encoding="utf-8"))["recipe"] for name, card in cards.items()}
    assert recipes["shuffled"] == recipes["trained"] | {"shuffled": True}
    assert recipes["untrained"] == recipes["trained"] | {"steps": 0}


def test_the_table_is_of_these_weights_and_this_model(embedded_lm):
    made = json.loads((judge.DATA / "projectors_key.json").read_text(encoding="utf-8"))
    assert made["key"] == judge.key(embedded_lm), "run tools/judge_projectors.py and commit its table"


def test_a_part_of_the_table_is_computed_again(embedded_lm):
    turn, which = divmod(TODAY, len(stitched.PROJECTORS))
    name, split = stitched.PROJECTORS[which], ("validation", "test")[turn % 2]
    ranks = judge.ranks(stitched.stitch(embedded_lm, name), judge.held_out(split))
    found = judge.rows(ranks, name, split)
    table = projector_table().query("projector == @name and split == @split")
    assert found["n"].tolist() == table["n"].tolist()
    assert found["measure"].tolist() == table["measure"].tolist()
    for column in ("median", "low", "high"):
        # Two nouns that are as good as even may change places on another processor.
        np.testing.assert_allclose(found[column], table[column], atol=3, err_msg=f"{name} {split} {column}")


def test_the_ranks_of_single_concepts_are_those_of_the_table():
    single = projector_ranks().groupby(["projector", "measure"])["rank"].median()
    table = projector_table().query("chosen and split == 'test'").set_index(["projector", "measure"])["median"]
    pd.testing.assert_series_equal(single.sort_index(), table.sort_index(), check_names=False)


def test_each_layer_was_chosen_on_validation_concepts():
    table = projector_table()
    for name, rows in table[table.split == "validation"].groupby(["projector", "measure"]):
        assert rows[rows.chosen].layer.tolist() == [rows.loc[rows["median"].idxmin(), "layer"]], name
    chosen = table[table.chosen].groupby(["projector", "measure"]).layer.agg(["nunique", "size"])
    assert (chosen == [1, 2]).all(axis=None)


@pytest.mark.parametrize("measure", ["plain", "centred"])
def test_the_trained_projector_reads_pictures_and_its_controls_do_not(measure):
    rows = projector_table().query("chosen and split == 'test' and measure == @measure").set_index("projector")
    trained = rows.loc["trained"]
    for control in stitched.CONTROLS:
        assert trained["median"] <= rows.loc[control, "median"] / 2
        assert trained["high"] < rows.loc[control, "low"]


def test_the_book_says_how_far_the_recipe_beats_the_one_tried_first():
    ranks = projector_ranks().pivot(index=["measure", "concept"], columns="projector", values="rank")
    draws = np.random.default_rng(0).integers(80, size=(2000, 80))
    for measure in ("plain", "centred"):
        at = ranks.loc[measure].to_numpy()[draws]
        lead = np.median(at, axis=1) - np.median(at, axis=1)[:, [list(ranks.columns).index("trained")]]
        low, high = (dict(zip(ranks.columns, np.quantile(lead, q, axis=0), strict=True)) for q in (0.025, 0.975))
        assert low["trial"] > 0
        assert low["trial-from-words"] < 0 < high["trial-from-words"]  # as good, for all that 80 concepts can tell
