"""Which language dominates: on states and lenses of known shape, by hand; the files of other models, whole or not."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import conftest
import dominance_row
import semhub_utils as sh
from semhub_utils import dominance
from semhub_utils.dominance import LENS, Measured, opening

SMALL = ["en", "es", "zh", "ar"]
SETTINGS = {"n": 6, "texts": 4, "shuffles": 20, "seed": 0}
ITEMS, LAYERS = 40, 11


def planted(near=None, mass=None, null=0.1, languages=SMALL):
    """A model of ten blocks in which a language is near, or read, as far as it is said: (language: value)."""
    rng = np.random.default_rng(0)
    pairs = [(a, b) for a in languages for b in languages if a != b]
    noise = {pair: rng.normal(0, 0.05, (ITEMS, LAYERS)) for pair in pairs}
    for pair in pairs:
        noise[pair][:, 6] += 0.3 + (near or {}).get(pair[1], 0)
    deals = {pair: rng.normal(0, 0.01, (50, LAYERS)) for pair in pairs}
    read = {code: rng.uniform(0, 0.02, (ITEMS, LAYERS, len(LENS))) for code in languages}
    for code, values in read.items():
        for name, share in (mass or {}).items():
            values[:, 5, LENS.index(name)] += share
        if code in LENS:
            values[:, -1, LENS.index(code)] += 0.6
    control = {code: np.full((LAYERS, len(LENS)), null) for code in languages}
    return Measured(tuple(languages), LENS, noise, noise, deals, read, control, seed=0)


def test_the_middle_and_the_picked_block():
    assert planted().middle == [4, 5, 6, 7, 8]
    assert set(planted().layer_of) == {6}


def test_meeting_is_the_mean_over_the_other_languages_at_the_picked_block():
    one = planted(near={"zh": 0.2})
    by_hand = np.mean([one.near[code, "zh"][:, 6] for code in ("en", "es", "ar")], axis=0)
    assert np.allclose(one.meets("zh"), by_hand)
    by_hand = np.mean([one.near[code, "zh"][:, 6] for code in ("es", "ar")], axis=0)
    assert np.allclose(one.meets("zh", without=("en",)), by_hand)
    deals = np.mean([one.near_null[code, "zh"] for code in ("en", "es", "ar")], axis=0).max(1)
    assert one.meets_null("zh") == pytest.approx(np.quantile(deals, 0.95))


def test_the_leader_is_the_language_that_was_planted_and_no_other():
    one = planted(near={"zh": 0.2}, mass={"ar": 0.5, "en": 0.2})
    assert sh.interval(sh.bootstrap(one.lead("zh", "meets")[1]))[0] > 0.15
    for code in ("en", "es", "ar"):
        rival, lead = one.lead(code, "meets")
        assert rival == "zh"
        assert sh.interval(sh.bootstrap(lead))[1] < 0
    rival, lead = one.lead("ar", "reads")
    assert rival == "en"
    assert lead.mean() == pytest.approx(0.3, abs=0.02)
    assert one.lead("en", "reads")[0] == "ar"


def test_a_language_does_not_count_at_its_own_sentences():
    one = planted()
    one.mass["zh"][:, 5, LENS.index("zh")] += 0.9  # Chinese, read at Chinese sentences and nowhere else
    assert one.reads("zh").mean() < 0
    assert one.lead("en", "reads")[1].mean() == pytest.approx(0, abs=0.01)


def test_what_the_lens_reads_is_judged_against_its_shuffled_rows():
    assert planted(mass={"en": 0.5}, null=0.1).reads("en").mean() == pytest.approx(0.41, abs=0.01)
    assert planted(mass={"en": 0.5}, null=0.8).reads("en").mean() == pytest.approx(-0.29, abs=0.01)


def test_the_end_is_the_sentences_own_language_minus_the_anchor():
    one = planted()
    at_end = one.mass["zh"][:, -1]
    assert np.allclose(one.returns("en", "zh"), at_end[:, LENS.index("zh")] - at_end[:, LENS.index("en")])
    assert one.returns("en", "zh").mean() == pytest.approx(0.6, abs=0.01)


@pytest.mark.parametrize(
    ("sentence", "cut"),
    [
        ("My little sister named her puppy Mango.", "My little sister named her puppy"),
        ("¿Dónde está el perro?", "Dónde está el"),
        ("我妹妹给她的小狗起名叫芒果。", "我妹妹给她的小狗起名叫"),
    ],
)
def test_an_opening_lacks_the_last_word(sentence, cut):
    assert opening(sentence) == cut


def test_every_sentence_of_the_book_has_an_opening():
    table = sh.data.sentences()
    for language in table.columns[3:]:
        for sentence in table[language]:
            assert 0 < len(opening(sentence)) < len(sh.data.bare(sentence))


@pytest.fixture(scope="module", params=["llama", "qwen2", "bloom"])
def tiny(request):
    return conftest.build(request.param)


def test_measuring_a_model_is_what_its_parts_give(tiny):
    table = sh.data.sentences(SMALL, plain=True).head(6)
    one = dominance.measure(tiny, table, texts=4, shuffles=20)
    states = {code: sh.hidden_states(tiny, [sh.data.bare(text) for text in table[code]]) for code in SMALL}
    expected = sh.item_scores(states["zh"], states["en"], "centred")
    assert np.allclose(one.near["zh", "en"], expected, atol=1e-4)
    assert one.found["ar", "es"].shape == (6, tiny.n_layers + 1)
    read = sh.language_mass(tiny, [opening(text) for text in table["zh"][:4]], LENS, shuffles=20, progress=False)
    spanish = read[read["language"] == "es"].pivot(index="text", columns="layer", values="mass")
    assert np.allclose(one.mass["zh"][..., LENS.index("es")], spanish, atol=1e-5)
    control = read[read["language"] == "es"].groupby("layer")["null_high"].first()
    assert np.allclose(one.mass_null["zh"][:, LENS.index("es")], control, atol=1e-5)


def test_rows_are_the_measures_with_their_intervals():
    one = planted(near={"zh": 0.2}, mass={"en": 0.5})
    rows = dominance.dominance(one)
    assert (rows["low"] <= rows["value"]).all()
    assert (rows["value"] <= rows["high"]).all()
    by = rows.set_index(["measure", "text", "language"])["value"]
    assert by["near", "es", "zh"] == pytest.approx(one.near["es", "zh"][:, 6].mean())
    assert by["meets", "all others", "zh"] == pytest.approx(one.meets("zh").mean())
    assert by["excess", "all others", "en"] == pytest.approx(one.reads("en").mean())
    assert by["returns", "zh", "en"] == pytest.approx(one.returns("en", "zh").mean())
    assert rows.duplicated(["measure", "text", "language"]).sum() == 0


@pytest.fixture(scope="module")
def written(tiny, tmp_path_factory):
    """What the command writes for a model, with few sentences."""
    return dominance_row.row(tiny, **SETTINGS, folder=tmp_path_factory.mktemp("rows"))


@pytest.fixture
def file(written, tmp_path):
    """A copy of one's own."""
    return Path(shutil.copy(written, tmp_path))


def test_the_command_keeps_the_rows_with_where_they_come_from(tiny, file, tmp_path):
    content = json.loads(file.read_text(encoding="utf-8"))
    made = content["made"]
    assert file.name == f"{tiny.spec.name}.json"
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    assert made["settings"] == SETTINGS
    assert (made["device"], made["precision"], made["quantized"]) == ("cpu", "float32", False)
    assert made["revision"] == tiny.spec.revision
    assert made["versions"]["torch"] == torch.__version__
    assert made["versions"]["semhub_utils"] == sh.__version__
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", made["date"])
    rows, where = dominance.read(tiny.spec.name, tmp_path)
    assert made["date"][:10] in where
    table = sh.data.sentences(plain=True).sample(6, random_state=0)
    again = dominance.dominance(dominance.measure(tiny, table, 4, 20, 0))
    pd.testing.assert_frame_equal(rows[list(again)], again, atol=1e-5, check_dtype=False)
    assert file.stat().st_size < 200_000


def test_the_table_shows_a_file_with_its_date_and_a_model_without_one_as_such(tiny, file, tmp_path):
    shown = dominance.overview({"gemma-3-270m": dominance.dominance(planted(mass={"en": 0.5}))}, tmp_path)
    assert shown.loc["gemma-3-270m", "from"] == "this run"
    assert shown.loc["gemma-3-270m", "reads"].startswith("English, +")
    assert shown.loc["gemma-3-270m", "English read"] == "51% (shuffled 10%)"
    assert shown.loc["gemma-3-270m", "own language at the end"] == "3 of 3"
    assert shown.loc["bloom-7b1", "from"] == "no run yet: `python tools/dominance_row.py bloom-7b1`"
    assert (shown.loc["bloom-7b1"].drop("from") == "").all()
    assert "float32" in shown.loc[tiny.spec.name, "from"]
    assert set(shown.index) == {name for name, spec in sh.REGISTRY.items() if spec.takes == ("text",)} | {
        tiny.spec.name
    }


@pytest.mark.parametrize("where", ["value", "date", "cut", "renamed"])
def test_a_file_that_was_changed_is_no_result(tiny, file, tmp_path, where):
    name, text = tiny.spec.name, file.read_text(encoding="utf-8")
    content = json.loads(text)
    if where == "value":
        content["rows"][0]["value"] += 0.1
    elif where == "date":
        content["made"]["date"] = "2030-01-01T00:00:00Z"
    if where == "renamed":
        name = "bloom-560m"
        file.rename(tmp_path / f"{name}.json")
    else:
        file.write_text(text[: len(text) // 2] if where == "cut" else json.dumps(content), encoding="utf-8")
    rows, why = dominance.read(name, tmp_path)
    assert rows is None
    assert why == f"the file is not as it was written: `python tools/dominance_row.py {name}`"
    assert (dominance.overview({}, tmp_path).loc[name].drop("from") == "").all()


def test_a_file_of_other_code_is_out_of_date(tiny, file, tmp_path, monkeypatch):
    assert dominance.read(tiny.spec.name, tmp_path)[0] is not None
    monkeypatch.setattr(dominance, "_CODE", (*dominance._CODE, "hooks"))
    rows, why = dominance.read(tiny.spec.name, tmp_path)
    assert rows is None
    assert why.startswith("out of date (")
    assert f"`python tools/dominance_row.py {tiny.spec.name}`" in why


def test_a_file_of_another_revision_than_the_books_is_out_of_date(tmp_path, monkeypatch):
    lm = conftest.build("llama")
    other = sh.LanguageModel(lm.model, lm.tokenizer, sh.ModelSpec("bloom-560m", "bigscience/bloom-560m", "main"))
    rows = dominance.dominance(planted())
    dominance.write(other, rows, SETTINGS, tmp_path)
    assert dominance.read("bloom-560m", tmp_path)[1].startswith("out of date")
    of_the_book = sh.LanguageModel(lm.model, lm.tokenizer, sh.REGISTRY["bloom-560m"])
    dominance.write(of_the_book, rows, SETTINGS, tmp_path)
    assert dominance.read("bloom-560m", tmp_path)[0] is not None


def test_the_key_changes_with_the_code_the_sentences_the_settings_and_the_weights(monkeypatch, tmp_path):
    first = dominance.key("one", "main", SETTINGS)
    assert first == dominance.key("one", "main", dict(reversed(SETTINGS.items())))
    assert first != dominance.key("one", "other", SETTINGS)
    assert first != dominance.key("one", "main", SETTINGS | {"n": 7})
    for name in ("similarity.py", "vocabulary.py", "data/sentences.tsv"):
        package = tmp_path / name.replace("/", "-") / "semhub_utils"
        (package / "data").mkdir(parents=True)
        for path in [*(f"{part}.py" for part in dominance._CODE), "data/sentences.tsv"]:
            source = (dominance.FOLDER.parent.parent / path).read_bytes()
            (package / path).write_bytes(source + (b"\n" if path == name else b""))
        monkeypatch.setattr(dominance, "__file__", str(package / "dominance.py"))
        assert first != dominance.key("one", "main", SETTINGS), name


def test_the_command_by_its_name(monkeypatch, capsys, tmp_path):
    lm = conftest.build("llama")
    lm.model.save_pretrained(tmp_path / "tiny")
    lm.tokenizer.save_pretrained(tmp_path / "tiny")
    few = ["--n", "6", "--texts", "4", "--shuffles", "20", "--to", str(tmp_path / "rows")]
    monkeypatch.setattr("sys.argv", ["dominance_row.py", str(tmp_path / "tiny"), *few])
    assert dominance_row.main() == 0
    assert dominance.read("tiny", tmp_path / "rows")[0] is not None
    monkeypatch.setattr("sys.argv", ["dominance_row.py", "nonesuch", *few])
    assert dominance_row.main() == 1
    assert "nonesuch: no row. no model is called 'nonesuch'" in capsys.readouterr().err
    assert dominance_row.wanting(tmp_path / "rows") == [
        name for name, spec in sh.REGISTRY.items() if spec.takes == ("text",)
    ]


def test_no_row_is_in_the_repository_that_is_not_whole():
    for path in dominance.FOLDER.glob("*.json"):
        assert "not as it was written" not in dominance.read(path.stem)[1], path.name
