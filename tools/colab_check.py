"""Run chapters as Colab does: the notebook alone in an empty folder, on the versions that Colab ships.

    python tools/colab_check.py                                every chapter
    python tools/colab_check.py evidence/languages             this one
    python tools/colab_check.py --one                          one chapter, another each day
    python tools/colab_check.py --freeze pip-freeze.gpu.txt    with the versions of that file, as fetched from Colab

The set-up cell installs the module's wheel, built here, data included. The check fails if that moves a package that
was there, if a chapter does not run to its end, or if it finds otherwise than `book/claims.toml` expects.
"""

import argparse
import datetime
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError

import build_book
import environments
from semhub_utils import cache, results

ROOT = build_book.ROOT
LIST = ROOT / "tools" / "colab.txt"
ENVIRONMENT, COPIES, WHEEL = (ROOT / "_build" / name for name in ("colab-env", "colab", "wheel"))


def wheel(folder: Path = WHEEL) -> Path:
    """Build the module's wheel into a folder of its own."""
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def versions(freeze: Path | None = None) -> dict[str, str]:
    """The versions to install: those of the dated list, or a newer freeze's for the same packages; torch as tested."""
    listed = environments.pins(LIST.read_text(encoding="utf-8"))
    if freeze:
        newer = environments.pins(freeze.read_text(encoding="utf-8"))
        listed = {name: newer[name] for name in listed if name in newer}
    return listed | {"torch": environments.tested_torch()}


def todays(chapters: list[str], day: datetime.date) -> str:
    """The chapter whose turn it is: each has its turn once in as many days as there are chapters."""
    return chapters[day.toordinal() % len(chapters)]


def moved(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """What is no longer as it was: "numpy 2.0.2 -> 2.4.6"."""
    return [f"{name} {version} -> {after.get(name)}" for name, version in before.items() if after.get(name) != version]


def run(chapter: str, python: Path, package: Path) -> list[str]:
    """Run a chapter alone with a kernel of that interpreter; returns what is wrong, a line each."""
    before = environments.installed(python)
    with tempfile.TemporaryDirectory(prefix="alone-") as name:  # outside the clone, whose files must not help
        folder = Path(name)
        notebook = Path(shutil.copy(build_book.BOOK / f"{chapter}.ipynb", folder))
        _kernel(folder / ".kernel", python, package)
        copy = COPIES / f"{chapter}.ipynb"
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            with build_book.variables({"JUPYTER_PATH": str(folder / ".kernel")}):
                papermill.execute_notebook(
                    notebook, copy, kernel_name="alone", cwd=folder, progress_bar=False, execution_timeout=600
                )
            wrong = [f"{chapter}: {sentence}" for sentence in _differences(chapter, folder / "results")]
        except PapermillExecutionError as error:
            wrong = [
                f"{chapter}, cell {error.cell_index}: {error.ename}: {error.evalue} (see {copy.relative_to(ROOT)})"
            ]
        except (CellTimeoutError, DeadKernelError) as error:
            wrong = [f"{chapter}: {error}"]
    return wrong + [f"{chapter} moved {change}" for change in moved(before, environments.installed(python))]


def _kernel(folder: Path, python: Path, package: Path) -> None:
    environment = build_book._ENVIRONMENT | {"SEMHUB_INSTALL": str(package), "PYTHONPATH": "", "SEMHUB_RESULTS": ""}
    environment["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # an old ipykernel warns of its debugger otherwise
    argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "alone", "language": "python", "env": environment}
    cache.write_text(folder / "kernels" / "alone" / "kernel.json", json.dumps(spec))


def _differences(chapter: str, folder: Path) -> list[str]:
    with build_book._environment(folder):
        return results.differences(chapter)


def main() -> int:
    """Make the environment, run the chapters, say how long each took and what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chapters", nargs="*", metavar="CHAPTER")
    parser.add_argument("--one", action="store_true", help="one chapter, another each day")
    parser.add_argument("--freeze", type=Path, help="a pip-freeze list to take the versions from")
    given = parser.parse_args()
    there = build_book.chapters()
    if unknown := [name for name in given.chapters if name not in there]:
        parser.error(f"no chapter is called {unknown[0]!r}; there are {', '.join(there)}")
    chosen = given.chapters or ([todays(there, datetime.date.today())] if given.one else there)
    wanted, wrong = versions(given.freeze), []
    try:
        package = wheel()
        for chapter in chosen:
            python = environments.make(ENVIRONMENT, wanted, [])
            start = time.time()
            found = run(chapter, python, package)
            print(f"{chapter}: {'failed' if found else 'ran alone'} in {time.time() - start:.0f} s", flush=True)
            wrong += found
    except environments.EnvironmentFailed as error:
        wrong.append(str(error))
    print("\n".join(wrong), file=sys.stderr, end="\n" if wrong else "")
    source = given.freeze.name if given.freeze else LIST.relative_to(ROOT)
    print(f"Versions: {source}, but torch {wanted['torch']} in its CPU build and Python {sys.version.split()[0]}.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
