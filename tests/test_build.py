"""The build: what decides that a chapter runs again, and what a failing one says."""

import os

import nbformat
import pytest

import build_book


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A small book of one chapter without a model, in a folder of its own."""
    for name in ("book/part", "semhub_utils", "_build"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "semhub_utils" / "module.py").write_text("x = 1\n")
    (tmp_path / "constraints.txt").write_text("torch==2\n")
    (tmp_path / "book" / "claims.toml").write_text("")
    (tmp_path / "_toc.yml").write_text(
        "format: jb-book\nroot: index\nparts:\n  - caption: Part\n    chapters:\n      - file: part/one\n"
    )
    monkeypatch.setattr(build_book.embedded, "path", lambda *package: None)
    for name, value in {
        "ROOT": tmp_path,
        "BOOK": tmp_path / "book",
        "BUILD": tmp_path / "_build",
        "EXECUTED": tmp_path / "_build" / "executed",
        "STAGE": tmp_path / "_build" / "site",
        "HTML": tmp_path / "_build" / "html",
        "_ENVIRONMENT": {},
    }.items():
        monkeypatch.setattr(build_book, name, value)
    return tmp_path


def write_chapter(book, *cells, name="one"):
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("# One"), *map(nbformat.v4.new_code_cell, cells)],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    nbformat.write(notebook, book / "book" / "part" / f"{name}.ipynb")


RESULT = "import pathlib; p = pathlib.Path('../../_build/results/part/one.json'); p.parent.mkdir(parents=True, exist_ok=True); p.write_text('[]')"  # noqa: E501
COUNT = "with open('runs', 'a') as f: f.write('x')"


def test_a_chapter_runs_once_until_something_that_decides_it_changes(book):
    write_chapter(book, RESULT, COUNT)
    runs = book / "book" / "part" / "runs"
    first = build_book.execute("part/one").read_bytes()
    assert build_book.execute("part/one").read_bytes() == first
    assert runs.read_text() == "x"

    (book / "semhub_utils" / "module.py").write_text("x = 2\n")
    build_book.execute("part/one")
    assert runs.read_text() == "xx"

    (book / "constraints.txt").write_text("torch==3\n")
    build_book.execute("part/one")
    assert runs.read_text() == "xxx"

    write_chapter(book, RESULT, COUNT, "1 + 1")
    build_book.execute("part/one")
    assert runs.read_text() == "xxxx"


def test_a_chapter_whose_results_are_gone_runs_again(book):
    write_chapter(book, RESULT, COUNT)
    build_book.execute("part/one")
    (book / "_build" / "results" / "part" / "one.json").unlink()
    build_book.execute("part/one")
    assert (book / "book" / "part" / "runs").read_text() == "xx"


def test_a_chapter_whose_results_were_written_by_another_run_runs_again(book):
    write_chapter(book, RESULT, COUNT)
    build_book.execute("part/one")
    (book / "_build" / "results" / "part" / "one.json").write_text('["another run"]')
    build_book.execute("part/one")
    assert (book / "book" / "part" / "runs").read_text() == "xx"


def test_a_failing_chapter_stops_the_build_and_names_the_chapter_and_the_cell(book, monkeypatch, capsys):
    write_chapter(book, "a = 1", "raise ValueError('no such layer')")
    failing = nbformat.read(book / "book" / "part" / "one.ipynb", as_version=4).cells[2].id
    monkeypatch.setattr("sys.argv", ["build_book.py"])
    assert build_book.main() == 1
    said = capsys.readouterr().err
    assert f"part/one, cell 2 ({failing})" in said
    assert "ValueError: no such layer" in said
    assert not (book / "_build" / "executed" / "part" / "one.ipynb").exists()
    assert not (book / "_build" / "html").exists()


def test_a_failing_chapter_does_not_replace_an_earlier_good_copy(book):
    write_chapter(book, RESULT, COUNT)
    good = build_book.execute("part/one").read_bytes()
    write_chapter(book, "1 / 0")
    with pytest.raises(build_book.ChapterError, match="ZeroDivisionError"):
        build_book.execute("part/one")
    assert (book / "_build" / "executed" / "part" / "one.ipynb").read_bytes() == good


@pytest.fixture
def reader(book):
    """The small book with a last chapter that reads what the first one found, and says so in its copy."""
    toc = (book / "_toc.yml").read_text()
    (book / "_toc.yml").write_text(f"{toc}      - file: part/last\n")
    write_chapter(book, RESULT)
    read = (
        "import json, os, pathlib\n"
        "path = pathlib.Path(os.environ['SEMHUB_RESULTS'], 'part', 'one.json')\n"
        "print(json.loads(path.read_text()) if path.exists() else 'not run')  # as sh.results.read() does\n"
        "own = path.with_name('last.json')\n"
        "own.parent.mkdir(parents=True, exist_ok=True)\n"
        "own.write_text('[]')"
    )
    write_chapter(book, read, name="last")
    return book


def said(path):
    return nbformat.read(path, as_version=4).cells[1].outputs[0].text.strip()


def test_a_chapter_that_reads_results_runs_again_when_they_change_and_only_then(reader):
    assert said(build_book.execute("part/last")) == "not run"
    build_book.execute("part/one")
    first = build_book.execute("part/last")
    assert said(first) == "[]"
    before = first.read_bytes()
    assert build_book.execute("part/last").read_bytes() == before
    one = build_book.results_folder() / "part" / "one.json"
    one.write_text('["new"]')
    assert said(build_book.execute("part/last")) == "['new']"
    (build_book.results_folder() / "part" / "elsewhere.json").write_text("[]")  # of no chapter
    last = build_book.execute("part/last").read_bytes()
    assert build_book.execute("part/last").read_bytes() == last
    one.unlink()
    assert said(build_book.execute("part/last")) == "not run"


def test_results_of_a_run_with_parameters_are_those_that_such_a_run_reads(reader):
    plain, other = build_book.chapter_key("part/last"), build_book.chapter_key("part/last", seed=7)
    build_book.execute("part/one")
    assert build_book.chapter_key("part/last") != plain
    assert build_book.chapter_key("part/last", seed=7) == other


def test_a_chapter_that_reads_no_results_does_not_hang_on_them(reader):
    before = build_book.chapter_key("part/one")
    build_book.execute("part/last")
    assert build_book.chapter_key("part/one") == before


def test_chapters_run_in_the_order_of_the_book_however_they_are_named(reader, monkeypatch):
    monkeypatch.setattr("sys.argv", ["build_book.py", "part/last", "part/one"])
    assert build_book.main() == 0
    assert said(build_book.EXECUTED / "part" / "last.ipynb") == "[]"


def test_a_chapter_of_the_book_that_reads_results_stands_after_those_it_reads():
    there = build_book.chapters()
    for chapter in filter(build_book.reads_results, there):
        source = (build_book.BOOK / f"{chapter}.ipynb").read_text(encoding="utf-8")
        read = [name for name in there if f'\\"{name}\\", ' in source]
        assert read, "it reads no chapter of the book"
        assert max(map(there.index, read)) < there.index(chapter)


def test_an_unknown_chapter_is_named_with_those_there_are(book, monkeypatch, capsys):
    write_chapter(book, RESULT)
    monkeypatch.setattr("sys.argv", ["build_book.py", "part/two"])
    with pytest.raises(SystemExit):
        build_book.main()
    assert "no chapter is called 'part/two'; there are part/one" in capsys.readouterr().err


def test_a_run_with_parameters_leaves_the_books_own_copy_and_results_alone(book):
    cells = [
        nbformat.v4.new_markdown_cell("# One"),
        nbformat.v4.new_code_cell("seed = 0", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(
            "import os, pathlib\n"
            "p = pathlib.Path(os.environ['SEMHUB_RESULTS'], 'part', 'one.json')\n"
            "p.parent.mkdir(parents=True, exist_ok=True)\n"
            "p.write_text(f'[{seed}]')"
        ),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), book / "book" / "part" / "one.ipynb")
    own = build_book.execute("part/one")
    before = own.read_bytes()
    other = build_book.execute("part/one", seed=7)
    assert other.name == "one@seed=7.ipynb"
    assert own.read_bytes() == before
    assert (build_book.results_folder() / "part" / "one.json").read_text() == "[0]"
    assert (build_book.results_folder(seed=7) / "part" / "one.json").read_text() == "[7]"
    assert build_book.execute("part/one", seed=7).read_bytes() == other.read_bytes()
    with pytest.raises(build_book.ChapterError, match="part/one has no parameter sed"):
        build_book.execute("part/one", sed=7)


def test_a_build_leaves_the_environment_as_it_was(book, monkeypatch):
    monkeypatch.delenv("SEMHUB_RESULTS", raising=False)
    before = dict(os.environ)
    write_chapter(book, RESULT)
    build_book.execute("part/one")
    assert dict(os.environ) == before
