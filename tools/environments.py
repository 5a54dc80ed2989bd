"""Virtual environments that a check makes once and uses again: an environment is known by what was asked of it."""

import json
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from semhub_utils import cache

ROOT = Path(__file__).resolve().parent.parent
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;#]+)", re.M)


class EnvironmentFailed(Exception):
    """An environment that could not be made."""


def pins(text: str) -> dict[str, str]:
    """The `name==version` lines of a list, by the name as package indexes write it; everything else is passed over."""
    return {normal(name): version for name, version in PIN.findall(text)}


def normal(name: str) -> str:
    """A package's name in the one form that makes two spellings of it equal."""
    return re.sub(r"[-_.]+", "-", name).lower()


def tested_torch() -> str:
    """The version of torch in constraints.txt: the environments take its CPU build, another would be several GB."""
    return pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))["torch"]


def installed(python: Path) -> dict[str, str]:
    """What is installed beside an interpreter."""
    listed = subprocess.run(
        [python, "-I", "-m", "pip", "list", "--format=freeze"], check=True, capture_output=True, text=True
    )
    return pins(listed.stdout)


def make(folder: Path, wanted: dict[str, str], more: list[str]) -> Path:
    """An environment with exactly `wanted`, and `more` beside it; returns its interpreter.

    Made again only if something else is wanted, or another Python asks. What was installed into it since is removed.

    Raises:
        EnvironmentFailed: with what pip said.
    """
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    stamp, key = folder / "made.json", cache.key([sorted(wanted.items()), more, sys.version])
    if stamp.is_file() and (made := json.loads(stamp.read_text()))["key"] == key:
        if extra := sorted(installed(python).keys() - made["packages"].keys()):
            subprocess.run([python, "-I", "-m", "pip", "uninstall", "-q", "-y", *extra], check=True)
        if installed(python) == made["packages"]:
            return python
    print(f"making {folder.relative_to(ROOT)} with Python {sys.version.split()[0]} ...", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    asked = [f"{name}=={version}" for name, version in wanted.items()]
    install = [str(python), "-I", "-m", "pip", "install", "-q", "--prefer-binary", *asked, *more]
    done = subprocess.run(install, capture_output=True, text=True)
    if done.returncode:
        raise EnvironmentFailed(f"{folder.relative_to(ROOT)} could not be made:\n{done.stderr[-2000:]}")
    stamp.write_text(json.dumps({"key": key, "packages": installed(python)}))
    return python
