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
import training_data as data
from semhub_utils import stitched
from semhub_utils.data.controls import projector_ranks, projector_table
from semhub_utils.data.images import things
from semhub_utils.data.words import words
from today import TODAY

NAMES = ["dog", "the cat", "bird", "water", "the dog sees a bird", "cat", "fox", "the lazy dog"]


EVERY = [(kind, name) for kind, names in stitched.PROJECTORS.items() for name in names]


@pytest.fixture
def small(monkeypatch, tmp_path, llama):
    """Eight made-up pictures or words and a random model, in place of the real ones."""
    frame = pd.DataFrame({"concept": NAMES, "source": "made", "file": "", "word": NAMES, "language": "en"})
    seen = torch.randn(len(NAMES), tool.BEST.copies, 4, 10, generator=torch.Generator().manual_seed(0)).half()
    monkeypatch.setattr(data, "training_pictures", lambda: frame.drop(columns=["word", "language"]))
    monkeypatch.setattr(data, "training_words", lambda: frame)
    monkeypatch.setattr(data, "picture_features", lambda frame, copies: seen)
    monkeypatch.setattr(data, "sound_features", lambda frame, copies: seen[:, :copies])
    monkeypatch.setattr(tool, "word_length", lambda lm: 1.5)
    monkeypatch.setattr(tool, "BATCH", 4)
    monkeypatch.setattr(tool, "KEEP_EVERY", 3)
    shorter = {
        kind: {name: replace(one, steps=9) for name, one in recipes.items()} for kind, recipes in tool.RECIPES.items()
    }
    monkeypatch.setattr(tool, "RECIPES", shorter)
    monkeypatch.setenv("SEMHUB_CACHE", str(tmp_path))
    return llama


@pytest.mark.parametrize(("kind", "name"), [("image", "trained"), ("image", "trial"), ("audio", "trained")])
def test_a_run_that_is_stopped_goes_on_to_the_same_weights(small, kind, name, monkeypatch, tmp_path):
    whole = tool.Run(kind, name, small)
    whole.train()
    whole.kept.unlink()
    loss = tool.Run.loss

    def stop_at_seven(self, step):
        if step == 7:
            raise KeyboardInterrupt
        return loss(self, step)

    monkeypatch.setattr(tool.Run, "loss", stop_at_seven)
    with pytest.raises(KeyboardInterrupt):
        tool.Run(kind, name, small).train()
    done = []
    monkeypatch.setattr(tool.Run, "loss", lambda self, step: done.append(step) or loss(self, step))
    again = tool.Run(kind, name, small)
    again.train()
    assert done == [6, 7, 8]
    assert again.losses == whole.losses
    for key, value in whole.weights().items():
        assert torch.equal(again.weights()[key], value), key
    assert not torch.equal(whole.weights()["weight"], tool.Run(kind, name, small).weights()["weight"])


@pytest.mark.parametrize("kind", ["image", "audio"])
def test_the_saved_map_is_the_one_that_was_trained(small, kind):
    run = tool.Run(kind, "trained", small)
    run.train()
    x = run.seen[:, 0].float()
    own = stitched.Projector.soft((x - run.mean) / run.spread, run.map, run.bias, run.length)
    held = run.weights()
    saved = stitched.Projector(held["weight"], held["bias"], float(held["length"]))(x)
    torch.testing.assert_close(saved, own, atol=5e-3, rtol=0)  # half precision


def test_the_regression_is_that_of_the_closed_form(small):
    run = tool.Run("audio", "regression", small)
    single = [i for i, name in enumerate(NAMES) if len(small.cut([f" {name}"], special=False)[0]) == 1]
    assert 2 <= len(single) < len(NAMES)
    embedding = small.model.get_input_embeddings().weight.detach().double().numpy()
    x, y = [], []
    for i in single:
        row = embedding[small.cut([f" {NAMES[i]}"], special=False)[0][0]]
        for part in ((run.seen[i].float() - run.mean) / run.spread).flatten(0, -2).double().numpy():
            x.append(part)
            y.append(row / np.linalg.norm(row))
    x, y = np.array(x), np.array(y)
    # Ridge regression as least squares with rows that pull towards zero: another road to the same map.
    pull = np.sqrt(0.1 * np.trace(x.T @ x) / x.shape[1])
    stacked = np.vstack([x, pull * np.eye(x.shape[1])]), np.vstack([y - y.mean(0), np.zeros((x.shape[1], y.shape[1]))])
    expected = np.linalg.lstsq(*stacked, rcond=None)[0].T
    long = np.sqrt(small.d_model)
    np.testing.assert_allclose(run.map.detach(), long * expected, atol=1e-5)
    np.testing.assert_allclose(run.bias.detach(), long * y.mean(0), atol=1e-5)


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
    monkeypatch.setattr(data, "training_pictures", lambda: frame)
    monkeypatch.setattr(data, "picture_features", lambda frame, copies: torch.randn(len(frame), copies, 4, 10))
    run = tool.Run("image", "shuffled", small)
    assert sorted(set(run.names)) == sorted(NAMES)
    assert run.names[0] == run.names[-1]
    assert sum(a == b for a, b in zip(run.names, frame.concept, strict=True)) <= 2
    assert tool.Run("image", "trained", small).names == frame.concept.tolist()


def test_words_are_dealt_out_within_their_language():
    names, languages = ["dog", "cat", "sun", "perro", "gato", "sol", "dog"], ["en"] * 3 + ["es"] * 3 + ["en"]
    found = tool.dealt(names, languages)
    assert sorted(found[:3]) == ["cat", "dog", "sun"]
    assert sorted(found[3:6]) == ["gato", "perro", "sol"]
    assert found[6] == found[0]
    assert found != names


def test_no_word_in_training_is_one_that_was_held_out():
    frame = data.training_words()
    assert frame.groupby("language").size().min() > 4000
    assert set(frame.language) == set(data.LANGUAGES)
    held = things().query("split != 'train'").noun
    spoken = words(data.LANGUAGES)
    spoken = spoken[spoken.concept.isin(held)]
    assert spoken.concept.nunique() == 160
    assert not set(frame.word.str.lower()) & set(spoken.word.str.lower())
    said = {word.lower() for word in frame.word}
    # Another form of a held-out word gives it away as well.
    assert not {f"{word.lower()}{end}" for word in spoken.word for end in ("s", "es", "n", "en")} & said


def test_a_voice_is_never_the_one_that_was_held_out(monkeypatch):
    asked = []
    monkeypatch.setattr(data.sounds, "speak", lambda *how: asked.append(how))
    for row in range(300):
        data.voiced("dog", "en", np.random.default_rng([row, 2]))
    voices, speeds, pitches = (set(column) for column in list(zip(*asked, strict=True))[2:])
    assert voices == set(data.sounds.VOICES) - {data.sounds.HELD_OUT}
    assert len(speeds) > 30
    assert len(pitches) > 20


def test_features_are_brought_to_unit_variance():
    seen = torch.randn(200, 4, 6) @ torch.randn(6, 6) + 3
    mean, spread = tool.mean_and_spread(seen)
    x = ((seen - mean) / spread).flatten(0, 1)
    torch.testing.assert_close(x.std(0), torch.ones(6), atol=1e-4, rtol=0)
    torch.testing.assert_close(x.mean(0), torch.zeros(6), atol=1e-4, rtol=0)


def test_a_changed_picture_is_another_view_of_the_same():
    from PIL import Image

    picture = Image.new("RGBA", (224, 224), (255, 0, 0, 255))
    views = [np.asarray(data.changed(picture, np.random.default_rng(seed))) for seed in range(4)]
    assert all(view.shape == (224, 224, 3) for view in views)
    assert len({view.tobytes() for view in views}) == 4
    red = [(view[..., 0] > 120) & (view[..., 1] < 80) for view in views]
    assert all(0.2 < mask.mean() <= 1 for mask in red)


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_the_committed_weights_are_those_of_their_card(kind, name):
    path = stitched.projector_file(name, kind)
    card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert card["encoder"] == stitched.ENCODERS[kind][1]
    assert card["recipe"]["shuffled"] == (name == "shuffled")
    assert path.stat().st_size < 2e6


@pytest.mark.parametrize("kind", stitched.PROJECTORS)
def test_the_controls_were_trained_as_the_projector_was(kind):
    cards = {name: stitched.projector_file(name, kind).with_suffix(".json") for name in stitched.PROJECTORS[kind]}
    recipes = {name: json.loads(card.read_text(encoding="utf-8"))["recipe"] for name, card in cards.items()}
    assert recipes["shuffled"] == recipes["trained"] | {"shuffled": True}
    start = {"regression": None} if kind == "audio" else {}  # a start that already reads is no control
    assert recipes["untrained"] == recipes["trained"] | {"steps": 0} | start


@pytest.mark.parametrize("kind", stitched.PROJECTORS)
def test_the_table_is_of_these_weights_and_this_model(embedded_lm, kind):
    made = json.loads((judge.DATA / f"{kind}_projectors_key.json").read_text(encoding="utf-8"))
    assert made["key"] == judge.key(embedded_lm, kind), "run tools/judge_projectors.py and commit its table"


def test_a_part_of_the_table_is_computed_again(embedded_lm):
    cells = [
        (kind, name, split, form)
        for kind, name in EVERY
        for form in judge.FORMS[kind]
        for split in ("validation", "test")
    ]
    kind, name, split, form = cells[TODAY % len(cells)]
    ranks = judge.ranks(stitched.stitch(embedded_lm, name, kind), kind, judge.held_out(kind, split, form))
    found = judge.rows(ranks, name, split, form)
    table = projector_table(kind).query("projector == @name and split == @split and form == @form")
    assert found["n"].tolist() == table["n"].tolist()
    assert found["measure"].tolist() == table["measure"].tolist()
    for column in ("median", "low", "high"):
        # Two nouns that are as good as even may change places on another processor.
        np.testing.assert_allclose(found[column], table[column], atol=3, err_msg=f"{kind} {name} {split} {form}")


@pytest.mark.parametrize("kind", stitched.PROJECTORS)
def test_the_ranks_of_single_concepts_are_those_of_the_table(kind):
    by = ["projector", "form", "measure"]
    single = projector_ranks(kind).groupby(by)["rank"].median()
    table = projector_table(kind).query("chosen and split == 'test'").set_index(by)["median"]
    pd.testing.assert_series_equal(single.sort_index(), table.sort_index(), check_names=False)


@pytest.mark.parametrize("kind", stitched.PROJECTORS)
def test_each_layer_was_chosen_on_validation_concepts(kind):
    table = projector_table(kind)
    first = table[(table.split == "validation") & (table.form == judge.FORMS[kind][0])]
    for name, rows in first.groupby(["projector", "measure"]):
        assert rows[rows.chosen].layer.tolist() == [rows.loc[rows["median"].idxmin(), "layer"]], name
    chosen = table[table.chosen].groupby(["projector", "measure"]).layer.agg(["nunique", "size"])
    assert (chosen == [1, 2 * len(judge.FORMS[kind])]).all(axis=None)


@pytest.mark.parametrize("measure", ["plain", "centred"])
@pytest.mark.parametrize(("kind", "form"), [("image", "openmoji"), ("audio", "en")])
def test_the_trained_projector_reads_what_it_never_met_and_its_controls_do_not(kind, form, measure):
    table = projector_table(kind)
    rows = table.query("chosen and split == 'test' and form == @form and measure == @measure").set_index("projector")
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


def test_another_kind_of_projector_is_refused():
    for call in (projector_table, projector_ranks):
        with pytest.raises(ValueError, match="kind is 'smell': there are projectors of image and audio"):
            call("smell")
