"""Execute the chapters and build the site; what has not changed since the last time is not done again.

    python tools/build_book.py                              the whole book, into _build/html
    python tools/build_book.py foundations/the-hypothesis   only run this chapter (or several)

A chapter runs once, in its own process. Its executed copy is what the tests judge and what the page shows.
"""

import argparse
import base64
import filecmp
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import nbformat
import papermill
import yaml
from filelock import FileLock
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError

import address
import bibliography
import card
import offline
import status_page
import vega
from semhub_utils import cache, embedded

ROOT = Path(__file__).resolve().parent.parent
BOOK, BUILD = ROOT / "book", ROOT / "_build"
FIGURE = BOOK / "_static" / "words-meet.png"
EXECUTED, STAGE, HTML = BUILD / "executed", BUILD / "site", BUILD / "html"

# A bar in an executed cell would stand in the page, and a hub must never be asked. The results go beside the copy.
# Threads that wait by spinning make a chapter many times slower as soon as something else runs on the machine.
_ENVIRONMENT = {
    "TQDM_DISABLE": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "OMP_WAIT_POLICY": "PASSIVE",
    "SEMHUB_WIDGETS": "0",
    "SEMHUB_MODEL": "gemma-3-270m",  # a GPU must not change the book
}


# Runs last in each chapter and is not kept: the live controls must show what the page shows. Its names are its own,
# since an explorer's function finds the chapter's by name when it is called.
_CHECK = """
import json as _json
import sys as _sys

_module = _sys.modules.get("semhub_utils")
_made = [value for value in list(Out.values()) if _module and isinstance(value, _module.Explorer)]
_names = [one.name for one in _made]
assert len(set(_names)) == len(_names), f"two explorers have one name: {_names}; rename a function"
print("explorers:" + _json.dumps({one.name: one.verify() for one in _made}))
"""


class ChapterError(Exception):
    """A chapter that did not run to its end."""


def pages() -> list[str]:
    """Every page of the table of contents, such as "foundations/the-hypothesis", in reading order."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"], *(page["file"] for part in toc["parts"] for page in part["chapters"])]


def chapters() -> list[str]:
    """The pages that are notebooks."""
    return [page for page in pages() if (BOOK / f"{page}.ipynb").is_file()]


def chapter_key(chapter: str, **parameters: object) -> str:
    """What decides a chapter's outputs: its notebook, the module, the claims, the model and the packages.

    And, for a notebook that reads what other chapters found, their results as they are now.
    """
    kinds = ("*.py", "*.tsv", "*.csv", "*.json", "*.safetensors")
    module = [path for kind in kinds for path in (ROOT / "semhub_utils").rglob(kind)]
    files = [BOOK / f"{chapter}.ipynb", BOOK / "claims.toml", ROOT / "constraints.txt", *module]
    content = {"chapter": chapter, "check": _CHECK, "reads": []}
    if reads_results(chapter):
        there = chapters()
        saved = {name: results_folder(**parameters) / f"{name}.json" for name in there[: there.index(chapter)]}
        content["reads"] = [name for name, path in saved.items() if path.is_file()]
        files += [saved[name] for name in content["reads"]]
    return cache.key(content, code=files, model=embedded.SHA256)


def reads_results(chapter: str) -> bool:
    """Whether a notebook reads what other chapters found: it must then stand after them, and run after them."""
    cells = nbformat.read(BOOK / f"{chapter}.ipynb", as_version=4).cells
    return any("results.read(" in cell.source for cell in cells if cell.cell_type == "code")


def execute(chapter: str, **parameters: object) -> Path:
    """The executed copy of a chapter, run now unless one with the same key is there.

    With parameters, such as `seed=1`, it is a copy beside the book's own, with results of its own in
    `results_folder(**parameters)`: a second run that asks whether the conclusions stay.

    Raises:
        ChapterError: naming the chapter, the cell and the error; the failed copy is kept for a look. Or naming a
            parameter that the chapter does not have.
    """
    unknown = parameters.keys() - papermill.inspect_notebook(str(BOOK / f"{chapter}.ipynb")) if parameters else None
    if unknown:
        raise ChapterError(f"{chapter} has no parameter {', '.join(sorted(unknown))}: see its parameters cell")
    name, key = f"{chapter}{_suffix(parameters)}", chapter_key(chapter, **parameters)
    target = EXECUTED / f"{name}.ipynb"
    made = nbformat.read(target, as_version=4).metadata.get("semhub", {}) if target.is_file() else {}
    if made.get("key") == key and made.get("results") == _results_key(chapter, parameters) is not None:
        return target
    embedded.path()  # converted here if it must be, so that no chapter's time and output hold it
    with suppress(ModuleNotFoundError):  # the chapter that wants the control does without it, and says so
        embedded.path(embedded.CONTROL_PACKAGE)
    running = BUILD / "running" / f"{name}.ipynb"
    running.parent.mkdir(parents=True, exist_ok=True)
    print(f"running {name} ...", flush=True)
    start = time.time()
    try:
        with _environment(results_folder(**parameters)):
            papermill.execute_notebook(
                _with_check(chapter),
                running,
                parameters,
                kernel_name="python3",
                cwd=(BOOK / chapter).parent,
                progress_bar=False,
                execution_timeout=600,
            )
    except PapermillExecutionError as error:
        # papermill puts cells of its own before the failing one in its copy; the source has the index right.
        cell = _with_check(chapter).cells[error.cell_index]
        raise ChapterError(
            f"{chapter}, cell {error.cell_index} ({cell.get('id', 'no id')}): {error.ename}: {error.evalue}\n"
            f"The copy up to there is {running.relative_to(ROOT)}."
        ) from error
    except (CellTimeoutError, DeadKernelError) as error:
        raise ChapterError(f"{chapter}: {error}") from error
    notebook = nbformat.read(running, as_version=4)
    explorers = _explorers(notebook.cells.pop())
    notebook.metadata.pop("widgets", None)  # the state of the controls that the check has turned
    seconds = round(time.time() - start, 1)
    made = {"key": key, "seconds": seconds, "results": _results_key(chapter, parameters), "explorers": explorers}
    notebook.metadata.semhub = made
    cache.write_text(target, nbformat.writes(notebook))
    running.unlink()
    print(f"ran {name} in {seconds} s", flush=True)
    return target


def _with_check(chapter: str) -> nbformat.NotebookNode:
    notebook = nbformat.read(BOOK / f"{chapter}.ipynb", as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(_CHECK, id="check-explorers"))
    return notebook


def _explorers(check: nbformat.NotebookNode) -> dict[str, int]:
    """By name, how many states of each explorer were the same live and on the page."""
    printed = "".join(output.get("text", "") for output in check.outputs)
    return json.loads(printed.rpartition("explorers:")[2])


def results_folder(**parameters: object) -> Path:
    """Where the claims of a run go: one folder for the book, one for each set of parameters."""
    return BUILD / f"results{_suffix(parameters)}"


def _environment(results: Path) -> AbstractContextManager[None]:
    return variables(_ENVIRONMENT | {"SEMHUB_RESULTS": str(results)})


@contextmanager
def variables(given: dict[str, str]) -> Iterator[None]:
    """What the kernels that start inside inherit; put back afterwards, since tests build in their own process."""
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _suffix(parameters: dict) -> str:
    given = "".join(f"@{name}={value}" for name, value in sorted(parameters.items()))
    return re.sub(r"[^\w@=.-]", "-", given)  # it names a file: a model may have a slash or a colon in its name


def _results_key(chapter: str, parameters: dict) -> str | None:
    # A chapter run by hand writes its results to the same place: then they are not those of the executed copy.
    path = results_folder(**parameters) / f"{chapter}.json"
    return cache.key(chapter, code=[path]) if path.is_file() else None


def stage() -> None:
    """Bring the folder that Sphinx reads up to date, touching only what changed."""
    fresh = BUILD / "site.new"
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(BOOK, fresh, ignore=shutil.ignore_patterns("*.ipynb", "claims.toml", ".ipynb_checkpoints"))
    shutil.copy(ROOT / "_toc.yml", fresh / "_toc.yml")
    (fresh / "_config.yml").write_text(config(), encoding="utf-8")
    for chapter in chapters():
        notebook = nbformat.read(EXECUTED / f"{chapter}.ipynb", as_version=4)
        notebook.cells = [c for c in notebook.cells if "injected-parameters" not in c.metadata.get("tags", [])]
        for entry in (notebook, *notebook.cells):
            entry.metadata.pop("papermill", None)
        _draw(notebook, fresh, chapter)
        nbformat.write(notebook, fresh / f"{chapter}.ipynb")
    text = sources()
    named = titles(text)
    written = {
        "status": status_page.status({chapter: named[chapter] for chapter in chapters()}),
        "bibliography": bibliography.page(BOOK / "reference" / "references.bib", text, named),
    }
    for page, markdown in written.items():
        (fresh / "reference" / f"{page}.md").write_text(markdown, encoding="utf-8")
    (fresh / FIGURE.relative_to(BOOK)).write_bytes(figure())
    (fresh / offline.CARD).write_bytes(card.draw())
    # Sphinx reads a page again when its time changes, so a file with the same bytes keeps the one that is there.
    for new in [path for path in fresh.rglob("*") if path.is_file()]:
        old = STAGE / new.relative_to(fresh)
        if old.is_file() and filecmp.cmp(new, old, shallow=False):
            shutil.copystat(old, new)
    shutil.rmtree(STAGE, ignore_errors=True)
    fresh.rename(STAGE)


def _draw(notebook: nbformat.NotebookNode, folder: Path, chapter: str) -> None:
    """Put a still picture into each explorer's chart."""
    at = Path("_static", "explorers", *Path(chapter).parts)
    root = "/".join([*[".."] * chapter.count("/"), at.as_posix()])
    for output in (o for cell in notebook.cells for o in cell.get("outputs", []) if "text/html" in o.get("data", {})):
        output.data["text/html"] = vega.with_pictures(output.data["text/html"], folder / at, root)


def config() -> str:
    """`_config.yml` as this build uses it: with buttons for Colab and Binder if the repository's address is set."""
    settings = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    settings.pop("repository", None)
    return yaml.safe_dump(settings | address.launch(address.address()), allow_unicode=True, sort_keys=False)


def figure() -> bytes:
    """The picture of the first page, out of this build's run of the first chapter (its cell tagged `first-page`)."""
    notebook = nbformat.read(EXECUTED / "foundations" / "the-hypothesis.ipynb", as_version=4)
    cell = next(cell for cell in notebook.cells if "first-page" in cell.metadata.get("tags", []))
    return base64.b64decode(next(o.data["image/png"] for o in cell.outputs if "image/png" in o.get("data", {})))


def sources() -> dict[str, str]:
    """The Markdown of each page, a chapter's cells in one; those that the build writes are left out."""
    found = {page: (BOOK / f"{page}.md").read_text("utf-8") for page in pages() if (BOOK / f"{page}.md").is_file()}
    for chapter in chapters():
        cells = nbformat.read(BOOK / f"{chapter}.ipynb", as_version=4).cells
        found[chapter] = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return {page: found[page] for page in pages() if page in found}


def titles(sources: dict[str, str]) -> dict[str, str]:
    """The heading of each page, by its Markdown."""
    return {page: text.splitlines()[0].lstrip("# ") for page, text in sources.items()}


def build_site() -> Path:
    """Stage and build the HTML if anything in it changed; warnings are errors. Returns the index page."""
    with _environment(results_folder()):
        stage()
    files = sorted(path for path in STAGE.rglob("*") if path.is_file())
    code = [*files, ROOT / "constraints.txt", *offline.SOURCES]
    key = cache.key([str(p.relative_to(STAGE)) for p in files] + [offline.site()], code=code)
    stamp = HTML / ".key"
    if not (stamp.is_file() and stamp.read_text() == key):
        # Sphinx looks at pages alone: a changed style would stay as it was, and a figure that nothing shows would stay.
        shutil.rmtree(HTML, ignore_errors=True)
        program = Path(sys.executable).with_name("jupyter-book")
        command = [str(program), "build", str(STAGE), "--path-output", str(ROOT), "-W", "-n", "--keep-going", "-q"]
        if subprocess.run(command, cwd=ROOT, env=offline.environment()).returncode:
            raise ChapterError("the site did not build: the warnings above are errors, each names its page and line")
        # After the build, since Jupyter Book would load every script of the staging folder on every page.
        vega.write_script(HTML / "_static" / "vega.js", BUILD)
        stamp.write_text(key)
    return HTML / "index.html"


def build() -> Path:
    """The whole book: every chapter run that has to be, and the site. Returns the index page.

    A second process that asks at the same time, as tests do that run side by side, waits for the first.
    """
    BUILD.mkdir(exist_ok=True)
    with FileLock(BUILD / ".lock"):
        for chapter in chapters():
            execute(chapter)
        return build_site()


def main() -> int:
    """Run the chapters, then build the site unless chapters were named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chapters", nargs="*", metavar="CHAPTER", help="only run these, such as part/chapter")
    named = parser.parse_args().chapters
    if unknown := [name for name in named if name not in chapters()]:
        parser.error(f"no chapter is called {unknown[0]!r}; there are {', '.join(chapters())}")
    try:
        # In the order of the book, however they were named: a chapter may read the results of those before it.
        for chapter in (name for name in chapters() if name in named):
            execute(chapter)
        if not named:
            if not address.launch(address.address()):
                print("No page has buttons for Colab and Binder: no GitHub address is set (`make address URL=...`).")
            print(f"The book is at {build()}\nRead it with `make serve`, or open that file.")
    except ChapterError as error:
        print(f"\nNot built. {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
