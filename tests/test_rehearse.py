"""The rehearsal of chapters on models of a reader's size: its models, what it counts, and its table."""

import json

import nbformat
import pytest
from PIL import Image

import build_book
import rehearse
import semhub_utils as sh

KERNEL = {"name": "python3", "language": "python", "display_name": "Python 3"}
CHAPTER = """
lm = sh.load(model)
texts = ["The dog", "The dog and the cat see a bird"]
with sh.record(lm, layers=[0, 3]):
    lm(texts)
lm.run(lm.encode(["The dog"] * 3))
"""


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A book of one chapter, whose model has the true depth and vocabulary."""
    cells = [
        nbformat.v4.new_code_cell("import semhub_utils as sh", id="setup"),
        nbformat.v4.new_code_cell('model = "auto"', id="parameters", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(CHAPTER, id="work"),
    ]
    (tmp_path / "one.ipynb").write_text(
        nbformat.writes(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL}))
    )
    monkeypatch.setattr(build_book, "BOOK", tmp_path)
    monkeypatch.setattr(rehearse, "FOLDER", tmp_path / "rehearsal")
    return tmp_path


def test_what_a_chapter_has_at_one_time_is_counted(book):
    most = rehearse.rehearse("one", narrow=True)
    lm = sh.load(str(rehearse.model("text", True)), device="cpu")
    assert lm.n_layers == sh.REGISTRY["llama-3-8b"].blocks
    assert lm.head.weight.shape[0] == 128_256
    longest = len(lm.token_ids("The dog and the cat see a bird")[0])
    assert most["tokens"] == 2 * longest
    assert most["logits"] == 2 * longest * 128_256
    assert most["kept"] == 2 * 2 * longest
    assert most["bytes"] == 0
    # 6.0 GB of weights in 4 bit; 67,584 numbers a token; the rest as the function's own words say.
    expected = 5_998_903_296 + 135_168 * 2 * longest + 6 * most["logits"] + 8192 * most["kept"] + 12 * 2**24
    assert rehearse.computed_bytes("text", most) == pytest.approx(expected + 14336 * 8192, rel=0.01)


@pytest.mark.parametrize(("kind", "count"), [("image", 576), ("audio", 25)])
def test_a_picture_and_a_second_of_sound_have_as_many_tokens_as_in_the_true_model(kind, count, tmp_path, monkeypatch):
    monkeypatch.setattr(rehearse, "FOLDER", tmp_path)
    lm = sh.load(str(rehearse.model(kind, True)), device="cpu", takes=kind)
    assert lm.n_layers == 32
    bring = Image.new("RGB", (300, 200), "red") if kind == "image" else sh.data.speak("dog", "en")
    example = sh.Example(**{kind: bring})
    found = sum(k > 0 for k in lm.kinds(lm.token_ids([example])[0]))
    seconds = 1 if kind == "image" else len(bring) / 16_000
    assert found == pytest.approx(count * seconds, abs=2)


def test_the_tokenizer_has_as_many_tokens_and_gives_back_what_it_was_given(tmp_path, monkeypatch):
    monkeypatch.setattr(rehearse, "FOLDER", tmp_path)
    cut = rehearse.tokenizer(32_064, ("<image>",))
    assert len(cut) == 32_064
    text = "The dog sees 法国的首都 and ğ,\n    return 1"
    ids = cut(text).input_ids
    assert max(ids) < 32_064
    assert cut.decode(ids, skip_special_tokens=True) == text
    assert len(cut(" the dog", add_special_tokens=False).input_ids) == 2


def test_the_table_says_what_was_measured_and_what_was_computed():
    row = {"like": "llama-3-8b", "gigabytes": 7.16, "minutes": 1.25, "on": "a GPU", "date": "2026-01-02"}
    first, second = build_book.chapters()[:2]
    rows = {second: row | {"how": "computed"}, first: row | {"how": "measured"}}
    lines = rehearse.table(rows).splitlines()[2:]
    assert lines[0] == f"| `{first}` | llama-3-8b | 7.2 | measured | 1.2 | a GPU | 2026-01-02 |"
    assert lines[1] == f"| `{second}` | llama-3-8b | 7.2 | computed |  | a GPU | 2026-01-02 |"
    page = "a\n<!-- rehearsal -->\nold\n<!-- end of rehearsal -->\nb"
    once = rehearse.written(page, rows)
    assert "old" not in once
    assert rehearse.written(once, rows) == once


def test_the_page_has_the_rows_that_are_kept():
    rows = json.loads(rehearse.KEPT.read_text(encoding="utf-8"))
    page = rehearse.PAGE.read_text(encoding="utf-8")
    assert "<!-- rehearsal -->" in page
    assert rehearse.written(page, rows) == page
    assert rows.keys() == set(rehearse.chapters())
    for chapter, row in rows.items():
        assert row["how"] in ("measured", "computed")
        assert row["like"] == rehearse.LIKE[rehearse.takes(chapter)]
        if row["how"] == "computed":
            assert row["gigabytes"] == pytest.approx(
                rehearse.computed_bytes(rehearse.takes(chapter), row["most"]) / 1e9, abs=0.01
            )
