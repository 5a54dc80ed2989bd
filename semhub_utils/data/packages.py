"""Where packages that bring data lie, and the stamps of Tux Paint."""

import os
from importlib.util import find_spec
from pathlib import Path

_STAMPS = Path("/usr/share/tuxpaint/stamps")


def package_folder(module: str, package: str, why: str) -> Path:
    """The folder of an installed package, found without importing it.

    Args:
        module: its name in Python.
        package: its name for pip.
        why: the beginning of the sentence that says it is missing, such as "the emoji are drawn by".

    Raises:
        ModuleNotFoundError: if it is not installed, with the command that installs it.
    """
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"{why} the package {package!r}: run `pip install {package}`")
    return Path(spec.submodule_search_locations[0])


def stamps_folder() -> Path:
    """The folder of Tux Paint's stamps: `$SEMHUB_STAMPS`, or where Debian puts them.

    Raises:
        FileNotFoundError: if it is not there, with the command that installs it.
    """
    folder = Path(os.environ.get("SEMHUB_STAMPS") or _STAMPS)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is not there: the stamps of Tux Paint come with `apt-get install tuxpaint-stamps-default`; "
            f"a copy elsewhere is named by the variable SEMHUB_STAMPS"
        )
    return folder
