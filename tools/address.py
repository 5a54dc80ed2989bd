"""The repository's address: read from one place, and written into what must carry it literally.

    python tools/address.py                                says what it is
    python tools/address.py https://github.com/you/book    writes it (also: make address URL=...)

It stands in `_config.yml`. A notebook that lies alone in a folder, and the citation file, have to repeat it.
"""

import os
import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
PLACEHOLDER = "https://github.com/OWNER/semantic-hub"
_FORM = re.compile(r"https://[\w.-]+(/[\w.-]+){2,}")


def address(root: Path = ROOT) -> str | None:
    """The address, or None while the placeholder stands; the environment variable SEMHUB_REPOSITORY wins.

    Raises:
        ValueError: for an address of another form.
    """
    found = _checked(os.environ.get("SEMHUB_REPOSITORY") or written(root))
    return None if found == PLACEHOLDER else found


def written(root: Path = ROOT) -> str:
    """What `_config.yml` says, the placeholder included."""
    return yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]


def carriers(root: Path = ROOT) -> list[Path]:
    """The files in which the address is repeated, `_config.yml` first."""
    return [root / "_config.yml", root / "CITATION.cff", *sorted((root / "book").rglob("*.ipynb"))]


def write(url: str, root: Path = ROOT) -> list[Path]:
    """Put another address in the place of the present one; returns the files that changed.

    Raises:
        ValueError: for an address of another form, or a file that does not carry the present one.
    """
    old, new = written(root), _checked(url)
    files = [path for path in carriers(root) if ".ipynb_checkpoints" not in path.parts]
    texts = {path: path.read_text(encoding="utf-8") for path in files}
    # An address may be the beginning of another one: what follows must not belong to a name.
    present = re.compile(re.escape(old) + r"(?![\w/-]|\.\w)")
    if missing := [str(path.relative_to(root)) for path, text in texts.items() if not present.search(text)]:
        raise ValueError(f"{', '.join(missing)} does not hold the address {old!r}: nothing was written; put it there")
    changed = {path: present.sub(new, text) for path, text in texts.items()}
    for path, text in changed.items():
        path.write_text(text, encoding="utf-8")
    return [path for path in files if changed[path] != texts[path]]


def launch(url: str | None) -> dict:
    """What the built book's configuration needs for buttons that open a chapter on Colab and on Binder.

    Empty without an address. Both services find a notebook by its place on GitHub, so elsewhere it is empty too.
    """
    if not url or not url.startswith("https://github.com/"):
        return {}
    return {
        "launch_buttons": {
            "colab_url": "https://colab.research.google.com",
            "binderhub_url": "https://mybinder.org",
            "notebook_interface": "jupyterlab",
        },
        "repository": {"url": url, "path_to_book": "book", "branch": "main"},
    }


def _checked(url: str) -> str:
    url = url.strip().rstrip("/").removesuffix(".git")
    if not _FORM.fullmatch(url):
        raise ValueError(f"the repository's address is {url!r}: give one such as https://github.com/you/semantic-hub")
    return url


def main() -> int:
    """Say the address, or write the one that is given."""
    try:
        if len(sys.argv) > 1:
            files = write(sys.argv[1])
            print(f"The address is {written()}, in {len(files)} files that were changed: see `git diff`.")
        else:
            print(address() or f"not set ({PLACEHOLDER} stands for it): make address URL=https://github.com/you/book")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
