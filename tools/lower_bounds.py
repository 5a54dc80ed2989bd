"""Run the module's tests with the oldest versions that requirements.txt allows, in an environment of their own.

    python tools/lower_bounds.py                          every test of the module
    python tools/lower_bounds.py tests/test_hooks.py      these files; what pytest takes may follow

The tests of the module are the files that do not need the build, which runs on constraints.txt alone. torch is the
tested CPU build: an older one is not to be had for every Python.
"""

import re
import subprocess
import sys
import tomllib

import environments

ROOT = environments.ROOT
BUILD_TOOLS = ("ruff", "mypy", "nbstripout", "hatch", "playwright", "axe")


def lowest(requirements: str) -> dict[str, str]:
    """The lower bound of each requirement as the one version to install; torch as tested."""
    found = re.findall(r"^([A-Za-z0-9._-]+)(?:>=|==)([0-9.]+)", requirements, re.M)
    return dict(found) | {"torch": environments.tested_torch()}


def module_tests() -> list[str]:
    """The test files that need nothing of the build."""
    files = sorted((ROOT / "tests").glob("test_*.py"))
    return [f"tests/{path.name}" for path in files if "build_book" not in path.read_text(encoding="utf-8")]


def main() -> int:
    """Make `.venv-lower` unless it is there, and run the tests in it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    more = [name for name in project["optional-dependencies"]["test"] if not name.startswith(BUILD_TOOLS)]
    wanted = lowest((ROOT / "requirements.txt").read_text(encoding="utf-8"))
    try:
        python = environments.make(ROOT / ".venv-lower", wanted, more)
    except environments.EnvironmentFailed as error:
        print(error, file=sys.stderr)
        return 1
    arguments = sys.argv[1:] or module_tests()
    done = subprocess.run([python, "-m", "pytest", "-p", "no:cacheprovider", *arguments], cwd=ROOT)
    lowered = ", ".join(f"{name} {version}" for name, version in wanted.items() if name != "torch")
    print(f"Lower bounds: {lowered}; torch {wanted['torch']}, Python {sys.version.split()[0]}.")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
