"""Every chapter runs to its end, and finds what `book/claims.toml` expects on the embedded model."""

import json
import tomllib
from pathlib import Path

import nbformat
import papermill
import pytest
from bs4 import BeautifulSoup

import build_book
import conftest
import seeing
from semhub_utils import cache, registry, results
from today import of_today

CHAPTERS = build_book.chapters()
# Runs beside the book's own, which must find what it finds. All of them take ten minutes: each day has one.
OTHERS = [(f"evidence/{name}", {"seed": 1}) for name in ("arithmetic", "code", "formal-semantics")]
OTHERS += [("evidence/languages", {"seed": 1, "subset": "others"})]  # both at once: a run takes long
OTHERS += [("evidence/vision", {"seed": 1}), ("causality/steering-vision", {"split": "validation"})]
OTHERS += [("evidence/audio", {"seed": 1}), ("causality/steering-audio", {"split": "validation"})]
AGAIN = of_today(OTHERS, len(OTHERS))
SOURCES = {name: (build_book.BOOK / f"{name}.ipynb").read_text(encoding="utf-8") for name in CHAPTERS}


def takes(source):
    """What the model of a chapter takes; "grown" where the chapter loads none, and grows its own."""
    if "sh.load(" not in source:
        return "grown"
    return next((kind for kind in ("image", "audio") if rf"takes=\"{kind}\"" in source), "text")


TAKES = {name: takes(source) for name, source in SOURCES.items()}
MODELS = {kind: small for kind, (small, _) in registry.AUTO.items()} | {"grown": "grown"}
# Models with random weights of every family that the book names, whose blocks, norms and tokenizers differ; the rest
# of the families, such as Baichuan's, become one of these when they are loaded.
FAMILIES = {"text": ["llama", "qwen2", "bloom"], "image": seeing.MAKERS, "audio": seeing.HEARING, "grown": []}
TIED = ("qwen2", "bloom")
NOTHING = [(name, family) for name in CHAPTERS for family in FAMILIES[TAKES[name]]]
# What a model of random weights shows too: the first two are about noise; in the third a word and its gloss are told
# apart by nothing but chance; text that never made sense loses none; a push of a part is a push, and a push at one
# token is less than one at another, also in two more: the layer's own directions move it a little more than others, and
# what is wiped near the end includes the token that is read. Names that are long are long in Spanish too. The last two
# are about SmolLM2, whatever the model is.
HOLD_OF_ANY_MODEL = {
    "best-layer-overstates-on-noise",
    "other-half-does-not-overstate-on-noise",
    "the-word-above-its-gloss-at-the-end",
    "steered-text-stays-fluent",
    "inside-above-outside",
    "inside-above-random-parts",
    "a-push-at-the-first-token-does-less",
    "states-beat-rows",
    "late-it-is-in-the-text",
    "spoken-near-its-translation",
    "it-is-back-in-the-control-too",
    "the-lens-is-blind-midway-in-the-control",
}


@pytest.fixture(params=CHAPTERS)
def chapter(request):
    return request.param


@pytest.fixture
def executed(chapter):
    """The copy that the site shows: run now, unless it is there and nothing that decides it has changed."""
    return nbformat.read(build_book.execute(chapter), as_version=4)


@pytest.fixture
def knows_nothing(family, tokenizer_of):
    """The folder of a small model with random weights."""
    code = [Path(__file__).with_name(name) for name in ("conftest.py", "seeing.py")]
    folder = build_book.BUILD / f"random-{family}-{cache.key({}, code=code)[:8]}"
    makers = seeing.MAKERS | seeing.HEARING
    if family in makers:
        model, reader = makers[family](tokenizer_of)
    else:
        made = conftest.build(family)
        model, reader = made.model, made.tokenizer
    model.save_pretrained(folder)
    reader.save_pretrained(folder)
    return folder


def test_the_table_of_contents_names_every_notebook():
    on_disk = {str(path.relative_to(build_book.BOOK).with_suffix("")) for path in build_book.BOOK.rglob("*.ipynb")}
    assert {name for name in on_disk if ".ipynb_checkpoints" not in name} == set(CHAPTERS)


def test_every_claim_belongs_to_a_chapter():
    entries = tomllib.loads((build_book.BOOK / "claims.toml").read_text(encoding="utf-8"))["claim"]
    assert {entry["chapter"] for entry in entries} == set(CHAPTERS)
    assert len({(entry["chapter"], entry["id"]) for entry in entries}) == len(entries)


def test_a_chapter_runs_and_its_claims_come_out_as_expected(executed, chapter, monkeypatch):
    monkeypatch.setenv("SEMHUB_RESULTS", str(build_book.results_folder()))
    assert all(cell.execution_count for cell in executed.cells if cell.cell_type == "code" and cell.source)
    assert results.differences(chapter) == []
    for result in results.read(chapter):
        assert result["low"] <= result["value"] <= result["high"]
        assert result["model"] == MODELS[TAKES[chapter]]
        assert result["revision"].startswith("plan:" if TAKES[chapter] == "grown" else "sha256:")
        assert result["n"] > 0
        assert result["seconds"] > 0
        assert result["peak_mb"] > 100
        assert {"date", "machine", "versions"} <= set(result)


@pytest.mark.parametrize(("chapter", "parameters"), AGAIN, ids=str)
def test_another_draw_of_the_data_changes_no_conclusion(chapter, parameters, monkeypatch):
    build_book.execute(chapter, **parameters)
    monkeypatch.setenv("SEMHUB_RESULTS", str(build_book.results_folder(**parameters)))
    assert results.differences(chapter) == []


@pytest.mark.parametrize(("chapter", "family"), of_today(NOTHING, 18))
def test_a_chapter_runs_to_its_end_on_a_model_that_knows_nothing(chapter, family, knows_nothing, monkeypatch):
    # Its tokenizer has no whole word and it has four blocks: whoever points a chapter at a large model for an hour
    # must not meet an assumption about ours in the last cell.
    build_book.execute(chapter, model=str(knows_nothing))
    monkeypatch.setenv("SEMHUB_RESULTS", str(build_book.results_folder(model=str(knows_nothing))))
    found = results.read(chapter)
    assert {result["name"] for result in found} == set(results.claims(chapter))
    assert {result["model"] for result in found} == {knows_nothing.name}
    # Where embedding and unembedding are one matrix, a random state reads as what it came from: there claims may hold.
    if family not in TIED:
        assert {result["name"] for result in found if result["held"]} <= HOLD_OF_ANY_MODEL


def test_a_chapter_writes_nothing_to_stderr_and_no_widget(executed):
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    assert [o.text for o in outputs if o.output_type == "stream" and o.name == "stderr"] == []
    assert not any("widget" in kind for output in outputs for kind in output.get("data", {}))


def test_every_explorer_showed_live_what_the_page_shows_for_every_choice(executed, chapter):
    compared = executed.metadata["semhub"]["explorers"]
    assert len(compared) >= (3 if chapter.endswith("languages") else 1)
    html = "".join(o.get("data", {}).get("text/html", "") for cell in executed.cells for o in cell.get("outputs", []))
    for figure in BeautifulSoup(html, "html.parser").select("figure.semhub-explorer"):
        params = json.loads(figure.find("script", type="application/json").string)["params"]
        binds = [param["bind"] for param in params if "bind" in param]
        choices = [len(b["options"]) if "options" in b else (b["max"] - b["min"]) / b["step"] + 1 for b in binds]
        assert compared.pop(figure["id"].removeprefix("explore-")) == sum(choices)
    assert compared == {}


def test_a_chapter_has_the_parts_that_every_chapter_has(chapter):
    notebook = nbformat.read(build_book.BOOK / f"{chapter}.ipynb", as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert notebook.cells[0].source.startswith("# ")
    for part in ("What you will learn", "Needed or helpful", "What this shows, what it does not", "## Quick checks"):
        assert part in text
    assert text.count("<details>") == text.count("</details>") >= 3
    assert text.rindex("## References") > text.rindex("## Quick checks")
    wanted = {"seed"} if TAKES[chapter] == "grown" else {"model", "seed"}
    assert wanted <= set(papermill.inspect_notebook(str(build_book.BOOK / f"{chapter}.ipynb")))


def test_the_set_up_cell_is_the_same_everywhere():
    first = set()
    for chapter in CHAPTERS:
        notebook = nbformat.read(build_book.BOOK / f"{chapter}.ipynb", as_version=4)
        first.add(next(cell.source for cell in notebook.cells if cell.cell_type == "code"))
    assert len(first) == 1


def test_a_source_notebook_is_stripped_and_its_cells_are_short(chapter):
    raw = json.loads((build_book.BOOK / f"{chapter}.ipynb").read_text(encoding="utf-8"))
    for cell in raw["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
            assert len("".join(cell["source"]).splitlines()) <= 25, cell["id"]


def test_every_figure_has_alt_text(executed):
    for cell in executed.cells:
        if any("image/png" in output.get("data", {}) for output in cell.get("outputs", [])):
            assert len(cell.metadata["mystnb"]["image"]["alt"]) > 40, cell.id


def test_every_figure_comes_after_a_sentence_that_says_what_to_see(chapter):
    before = ""
    for cell in nbformat.read(build_book.BOOK / f"{chapter}.ipynb", as_version=4).cells:
        if cell.cell_type == "markdown":
            before = cell.source
        # An explorer brings its own sentence.
        elif "mystnb" in cell.metadata and "sh.live(" not in cell.source and "sh.explore(" not in cell.source:
            assert "What to see: " in before, cell.id
