"""Put what a reader may want to keep into one archive: _build/semantic-hub-VERSION.zip.

The same build gives the same bytes: names in order, one date for all, nothing that belongs to a machine.
"""

import sys
import zipfile
from pathlib import Path

import build_book
import semhub_utils

_DATE = (2000, 1, 1, 0, 0, 0)
_README = """The Semantic Hub, version {version}

site/           the book as web pages: open site/index.html, no network is needed
notebooks/      the chapters as they ran, with their outputs
results/        what each chapter found, one JSON file a chapter: a list of claims with effect, interval and outcome
claims.toml     what each chapter claimed before that run
LICENSE         the licences of code and text; the data keep their own, see site/reference/data-cards.html

Made by `make release` from a working copy of the book.
"""


def contents() -> dict[str, bytes]:
    """What the archive holds: the bytes of each file by its name in it."""
    held = {
        "README.txt": _README.format(version=semhub_utils.__version__).encode(),
        "LICENSE": (build_book.ROOT / "LICENSE").read_bytes(),
        "claims.toml": (build_book.BOOK / "claims.toml").read_bytes(),
    }
    for path in _files(build_book.HTML):
        held[f"site/{path.relative_to(build_book.HTML).as_posix()}"] = path.read_bytes()
    for chapter in build_book.chapters():
        # The copies that the site shows: without what the build notes in its own, such as where it ran.
        held[f"notebooks/{chapter}.ipynb"] = (build_book.STAGE / f"{chapter}.ipynb").read_bytes()
        held[f"results/{chapter}.json"] = (build_book.results_folder() / f"{chapter}.json").read_bytes()
    return held


def write(path: Path, held: dict[str, bytes]) -> None:
    """Write a zip archive that depends on names and bytes alone."""
    folder = path.stem
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(held):
            entry = zipfile.ZipInfo(f"{folder}/{name}", _DATE)
            entry.external_attr = 0o644 << 16
            entry.create_system = 3  # or the archive would say on which system it was made
            archive.writestr(entry, held[name], zipfile.ZIP_DEFLATED, compresslevel=9)


def _files(folder: Path) -> list[Path]:
    # Hidden files are notes of the build to itself; a map of a script is for those who write the script.
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [path for path in found if not path.name.startswith(".") and path.suffix != ".map"]


def main() -> int:
    """Build what is not up to date, then write the archive."""
    try:
        build_book.build()
    except build_book.ChapterError as error:
        print(f"Not released. {error}", file=sys.stderr)
        return 1
    path = build_book.BUILD / f"semantic-hub-{semhub_utils.__version__}.zip"
    write(path, contents())
    print(f"{path.relative_to(build_book.ROOT)}, {path.stat().st_size / 2**20:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
