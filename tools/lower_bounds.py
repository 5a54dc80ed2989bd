"""Run the module's tests with the oldest versions that requirements.txt allows, in an environment of their own.

    python tools/lower_bounds.py                          every test of the module
    python tools/lower_bounds.py --today                  the third of them whose turn it is, as CI does
    python tools/lower_bounds.py tests/test_hooks.py      these files; what pytest takes may follow

The build and the site run on constraints.txt alone, so their tests are left out. torch is the version that is tested
everywhere: older ones do not come for every Python.
"""

import re
import subprocess
import sys
import tomllib

import environments
from today import of_today

ROOT = environments.ROOT
BUILD_TOOLS = ("ruff", "mypy", "nbstripout", "hatch", "playwright", "axe")


def lowest(requirements: str) -> dict[str, str]:
    """The lower bound of each requirement as the one version to install; torch as tested."""
    found = re.findall(r"^([A-Za-z0-9._-]+)(?:>=|==)([0-9.]+)", requirements, re.M)
    return dict(found) | {"torch": environments.tested_torch()}


def module_tests() -> list[str]:
    """The test files of the module's own files: a file is tested by the one of its name."""
    names = sorted({path.stem for path in (ROOT / "semhub_utils").rglob("*.py")})
    return [f"tests/test_{name}.py" for name in names if (ROOT / "tests" / f"test_{name}.py").is_file()]


def main() -> int:
    """Make `.venv-lower` unless it is there, and run the tests in it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    more = [name for name in project["optional-dependencies"]["test"] if not name.startswith(BUILD_TOOLS)]
    # pandas reads the tests' parquet files through pyarrow, and a new one does not go with an old numpy.
    more = [name.replace(">=", "==") if name.startswith("pyarrow") else name for name in more]
    wanted = lowest((ROOT / "requirements.txt").read_text(encoding="utf-8"))
    try:
        python = environments.make(ROOT / ".venv-lower", wanted, more)
    except environments.EnvironmentFailed as error:
        print(error, file=sys.stderr)
        return 1
    arguments = sys.argv[1:] or module_tests()
    if arguments == ["--today"]:
        arguments = of_today(module_tests(), 3)
    done = subprocess.run([python, "-m", "pytest", "-p", "no:cacheprovider", "-n", "2", *arguments], cwd=ROOT)
    lowered = ", ".join(f"{name} {version}" for name, version in wanted.items() if name != "torch")
    print(f"Lower bounds: {lowered}; torch {wanted['torch']}, Python {sys.version.split()[0]}.")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
