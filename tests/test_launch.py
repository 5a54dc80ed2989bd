"""A notebook that is opened elsewhere: the address that it carries, its set-up cell, the versions that it meets."""

import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup
from packaging.requirements import Requirement

import address
import build_book
import colab_check
import environments
import lower_bounds
import offline

ROOT = build_book.ROOT
ELSEWHERE = "https://github.com/you/book"


def test_every_place_carries_the_same_address():
    written = address.written()
    for path in address.carriers():
        text = path.read_text(encoding="utf-8")
        assert written in text, path.name
        assert written == address.PLACEHOLDER or address.PLACEHOLDER not in text, path.name


def test_the_placeholder_is_no_address(monkeypatch, tmp_path):
    monkeypatch.delenv("SEMHUB_REPOSITORY", raising=False)
    (tmp_path / "_config.yml").write_text(f"repository: {{url: {address.PLACEHOLDER}}}")
    assert address.address(tmp_path) is None
    monkeypatch.setenv("SEMHUB_REPOSITORY", f"{ELSEWHERE}.git/")
    assert address.address(tmp_path) == ELSEWHERE


@pytest.mark.parametrize(
    "wrong", ["github.com/you/book", "https://github.com/you", "git@github.com:you/book", "https:"]
)
def test_an_address_of_another_form_is_named(monkeypatch, capsys, wrong):
    monkeypatch.setattr("sys.argv", ["address.py", wrong])
    before = [path.read_bytes() for path in address.carriers()]
    assert address.main() == 1
    assert repr(wrong) in capsys.readouterr().err
    assert [path.read_bytes() for path in address.carriers()] == before


@pytest.fixture
def clone(tmp_path):
    """The files that carry the address, in a folder of their own."""
    for path in address.carriers():
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    address.write(address.PLACEHOLDER, tmp_path)
    return tmp_path


def test_a_new_address_is_written_everywhere_and_can_be_taken_back(clone, monkeypatch):
    monkeypatch.delenv("SEMHUB_REPOSITORY", raising=False)
    before = {path: path.read_bytes() for path in address.carriers(clone)}
    longer = f"{ELSEWHERE}-of-hubs"  # begins as the one before it
    for url in (ELSEWHERE, longer, ELSEWHERE):
        assert set(address.write(url, clone)) == set(before)
        assert address.address(clone) == url
    for path in before:
        text = path.read_text(encoding="utf-8")
        assert ELSEWHERE in text
        assert address.PLACEHOLDER not in text
        assert longer not in text
    for path in clone.rglob("*.ipynb"):
        nbformat.validate(nbformat.read(path, as_version=4))
    assert address.write(ELSEWHERE, clone) == []
    address.write(address.PLACEHOLDER, clone)
    assert {path: path.read_bytes() for path in before} == before


def test_nothing_is_written_while_one_place_holds_another_address(clone):
    config, citation = clone / "_config.yml", clone / "CITATION.cff"
    citation.write_text("title: nothing")
    before = config.read_bytes()
    with pytest.raises(ValueError, match=r"CITATION.cff does not hold the address"):
        address.write(ELSEWHERE, clone)
    assert config.read_bytes() == before


@pytest.mark.parametrize("url", [ELSEWHERE, None, "https://gitlab.com/you/book"])
def test_the_buttons_of_the_built_pages_open_the_chapter(tmp_path, monkeypatch, url):
    monkeypatch.setattr(address, "address", lambda: url)
    for page in build_book.pages():
        path = tmp_path / "site" / page
        path.parent.mkdir(parents=True, exist_ok=True)
        if page in build_book.chapters():
            notebook = nbformat.read(build_book.BOOK / f"{page}.ipynb", as_version=4)
            notebook.cells = notebook.cells[1:2]  # whatever a page holds, its buttons are the same
            notebook.cells.insert(0, nbformat.v4.new_markdown_cell("# A chapter"))
            nbformat.write(notebook, f"{path}.ipynb")
        else:
            path.with_suffix(".md").write_text("# A page\n")
    shutil.copy(ROOT / "_toc.yml", tmp_path / "site" / "_toc.yml")
    (tmp_path / "site" / "_config.yml").write_text(build_book.config(), encoding="utf-8")
    program = Path(sys.executable).with_name("jupyter-book")
    options = ["build", str(tmp_path / "site"), "--path-output", str(tmp_path), "-q"]
    subprocess.run([program, *options], check=True, capture_output=True, env=offline.environment())
    opened = set()
    for page in build_book.pages():
        html = (tmp_path / "_build" / "html" / f"{page}.html").read_text(encoding="utf-8")
        links = {a["href"] for a in BeautifulSoup(html, "html.parser").find_all("a", href=True)}
        colab = {link for link in links if link.startswith("https://colab.research.google.com/")}
        binder = {link for link in links if link.startswith("https://mybinder.org/")}
        if url == ELSEWHERE and page in build_book.chapters():
            assert colab == {f"https://colab.research.google.com/github/you/book/blob/main/book/{page}.ipynb"}
            assert binder == {f"https://mybinder.org/v2/gh/you/book/main?urlpath=lab/tree/book/{page}.ipynb"}
            opened |= {ROOT / unquote(link.split("/main/")[1]) for link in colab}
        else:
            assert colab | binder == set(), page
        assert not any(link.startswith(address.PLACEHOLDER) for link in links)
    if url == ELSEWHERE:
        assert len(opened) == len(build_book.chapters())
        assert all(path.is_file() for path in opened)


def test_the_build_uses_the_configuration_as_it_is_but_for_the_buttons(monkeypatch):
    ours = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    ours.pop("repository")
    monkeypatch.setattr(address, "address", lambda: None)
    assert yaml.safe_load(build_book.config()) == ours


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return colab_check.wheel(tmp_path_factory.mktemp("wheel"))


def test_the_wheel_holds_the_module_with_its_data_and_the_claims(wheel):
    with zipfile.ZipFile(wheel) as packed:
        inside = {name: packed.read(name) for name in packed.namelist() if name.startswith("semhub_utils/")}
    files = [path for path in (ROOT / "semhub_utils").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    expected = {str(path.relative_to(ROOT)): path.read_bytes() for path in files}
    assert "semhub_utils/data/sentences.tsv" in expected
    assert inside == expected | {"semhub_utils/claims.toml": (build_book.BOOK / "claims.toml").read_bytes()}


@pytest.fixture
def alone(tmp_path):
    """Runs the set-up cell in an empty folder where the module is not installed; installs go to a folder beside it."""
    notebook = nbformat.read(build_book.BOOK / f"{build_book.chapters()[0]}.ipynb", as_version=4)
    cell = next(cell.source for cell in notebook.cells if cell.cell_type == "code")
    target, folder = tmp_path / "installed", tmp_path / "empty"
    folder.mkdir()

    def run(install=None, **environment):
        # The tests' own environment has the module, and a clone on its path: hide both.
        hide = f"""
import os, sys
sys.path.insert(0, {str(target)!r})
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name == "semhub_utils" and not os.path.isdir(os.path.join({str(target)!r}, name)):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hide())
"""
        (tmp_path / "cell.ipy").write_text(f"{hide}\n{cell}\nprint('the module is', sh.__file__)\n", encoding="utf-8")
        given = {name: value for name, value in os.environ.items() if not name.startswith("SEMHUB_")}
        given |= {"PIP_NO_DEPS": "1", "PIP_TARGET": str(target), "PIP_NO_INDEX": "1", "IPYTHONDIR": str(tmp_path)}
        given |= {"SEMHUB_INSTALL": str(install)} if install else {}
        command = [sys.executable, "-m", "IPython", "--colors=NoColor", str(tmp_path / "cell.ipy")]
        done = subprocess.run(command, cwd=folder, env=given | environment, capture_output=True, text=True)
        return done.stdout + done.stderr

    run.folder, run.target = folder, target
    return run


def test_the_set_up_cell_installs_the_wheel_and_says_which_model_it_takes(alone, wheel):
    said = alone(wheel, SEMHUB_MODEL="gemma-3-270m")
    assert f"the module is {alone.target / 'semhub_utils' / '__init__.py'}" in said
    assert 'model = "auto" is gemma-3-270m' in said
    kept = environments.pins((alone.folder / ".packages.txt").read_text(encoding="utf-8"))
    assert kept["torch"].split("+")[0] == environments.tested_torch()
    assert {"numpy", "transformers", "pandas"} <= kept.keys()


def test_what_is_there_cannot_be_moved_by_the_set_up_cell(alone, tmp_path):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        '[project]\nname = "greedy"\nversion = "1"\ndependencies = ["numpy==1.99"]\n'
        "[tool.hatch.build.targets.wheel]\nbypass-selection = true\n"
    )
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=tmp_path / "project", check=True, capture_output=True)
    greedy = next(tmp_path.glob("greedy*.whl"))
    said = alone(greedy, PIP_NO_DEPS="0", PIP_TARGET="", PIP_DRY_RUN="1")
    assert "was not installed, pip says why" in said
    # Without the constraint pip would say that there is no such numpy: the index is off.
    assert "Cannot install greedy==1 because these package versions have conflicting dependencies" in said


@pytest.mark.skipif(address.written() != address.PLACEHOLDER, reason="the notebooks know their address")
def test_a_notebook_that_does_not_know_its_address_says_what_to_do(alone):
    said = alone()
    assert "This notebook does not know the address of its book yet: set SEMHUB_INSTALL" in said
    assert list(alone.folder.iterdir()) == []


def test_an_install_that_fails_says_what_and_what_to_do(alone):
    said = alone("/nowhere/semantic_hub-0.1.0-py3-none-any.whl")
    assert "RuntimeError: '/nowhere/semantic_hub-0.1.0-py3-none-any.whl' was not installed" in said
    assert "check the network, or set SEMHUB_INSTALL" in said


def test_what_colab_ships_meets_our_requirements_so_that_nothing_moves():
    text = (ROOT / "tools" / "colab.txt").read_text(encoding="utf-8")
    shipped, missing = environments.pins(text), re.search(r"# Not there at all: (.*?)\.\n", text, re.S).group(1)
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    for required in (Requirement(line) for line in lines if line and not line.startswith("#")):
        if required.name.startswith("gemma3"):
            assert "the embedded model" in missing
        elif environments.normal(required.name) in shipped:
            assert shipped[environments.normal(required.name)] in required.specifier, required.name
        else:
            assert required.name in missing


def test_the_list_of_colab_is_dated_and_names_its_source():
    text = (ROOT / "tools" / "colab.txt").read_text(encoding="utf-8")
    assert re.search(r"^# Source: googlecolab/backend-info, .* at commit [0-9a-f]{40}", text, re.M)
    assert datetime.date.fromisoformat(re.search(r"on (\d{4}-\d\d-\d\d)", text).group(1)) <= datetime.date.today()
    assert {"torch", "transformers", "numpy", "pandas", "ipykernel", "pip"} <= environments.pins(text).keys()


def test_a_fetched_list_gives_newer_versions_of_the_same_packages(tmp_path):
    (tmp_path / "freeze.txt").write_text("numpy==9.9\nkeras==3\nPyYAML==7\ntorch==2.99+cu128\nx @ file:///x\n")
    found = colab_check.versions(tmp_path / "freeze.txt")
    assert found == {"numpy": "9.9", "pyyaml": "7", "torch": environments.tested_torch()}
    assert colab_check.versions()["numpy"] != "9.9"
    assert "+" not in colab_check.versions()["torch"]


def test_a_package_that_moved_or_went_is_named():
    before = {"numpy": "2.0.2", "pandas": "2.2.2", "torch": "2.11"}
    assert colab_check.moved(before, before | {"emoji": "2"}) == []
    after = {"numpy": "2.4.6", "torch": "2.11"}
    assert colab_check.moved(before, after) == ["numpy 2.0.2 -> 2.4.6", "pandas 2.2.2 -> None"]


def test_every_chapter_has_its_turn():
    days = [datetime.date(2026, 12, 30) + datetime.timedelta(n) for n in range(len(build_book.chapters()))]
    assert {colab_check.todays(build_book.chapters(), day) for day in days} == set(build_book.chapters())


@pytest.fixture
def made(tmp_path, monkeypatch):
    """An environment that exists on paper: what pip would be asked is noted, what is installed is what we say."""
    state = {"asked": [], "packages": {"numpy": "1"}}

    def call(command, **_):
        state["asked"].append(command[4:])
        if command[4] == "uninstall":
            state["packages"] = {n: v for n, v in state["packages"].items() if n not in command}
        return subprocess.CompletedProcess(command, state.get("code", 0), "", "no such version")

    monkeypatch.delenv("TORCH_INDEX", raising=False)
    monkeypatch.setattr(environments, "ROOT", tmp_path)
    monkeypatch.setattr(environments, "installed", lambda _: dict(state["packages"]))
    monkeypatch.setattr(environments.venv, "create", lambda folder, **_: folder.mkdir())
    monkeypatch.setattr(environments.subprocess, "run", call)
    return state


def test_an_environment_is_made_once_and_tidied_after_use(made, tmp_path):
    make = lambda wanted: environments.make(tmp_path / "env", wanted, ["pytest"])  # noqa: E731
    python = make({"numpy": "1"})
    assert made["asked"] == [["install", "-q", "--prefer-binary", "numpy==1", "pytest"]]
    made["packages"]["emoji"] = "2"
    assert make({"numpy": "1"}) == python
    assert made["asked"][1:] == [["uninstall", "-q", "-y", "emoji"]]
    made["packages"]["numpy"] = "3"  # moved: only a new environment is as it was
    make({"numpy": "1"})
    assert made["asked"][2][0] == "install"
    make({"numpy": "2"})
    assert len(made["asked"]) == 4


def test_an_environment_that_cannot_be_made_leaves_none_that_looks_made(made, tmp_path):
    made["code"] = 1
    for _ in range(2):
        with pytest.raises(environments.EnvironmentFailed, match="env could not be made:\nno such version"):
            environments.make(tmp_path / "env", {"numpy": "77"}, [])
    assert len(made["asked"]) == 2


def test_the_lower_bounds_are_those_of_the_requirements():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    required = [Requirement(line) for line in lines if line and not line.startswith("#")]
    pins = lower_bounds.lowest("\n".join(lines))
    assert list(pins) == [requirement.name for requirement in required]
    for requirement in required:
        if requirement.name == "torch":
            assert pins["torch"] == environments.tested_torch()
        else:
            assert str(requirement.specifier).lstrip(">=") == pins[requirement.name]


def test_the_tests_on_the_lower_bounds_are_those_of_the_module():
    files = lower_bounds.module_tests()
    named = {"hooks", "loading", "words", "explore"}
    assert {f"tests/test_{name}.py" for name in named} <= set(files)
    for path in files:
        assert (ROOT / path).is_file()
        assert "build_book" not in (ROOT / path).read_text(encoding="utf-8"), path


def test_binder_builds_what_the_book_needs():
    environment = yaml.safe_load((ROOT / ".binder" / "environment.yml").read_text(encoding="utf-8"))
    assert any(package.startswith("pytorch-cpu") for package in environment["dependencies"])
    script = ROOT / ".binder" / "postBuild"
    assert os.access(script, os.X_OK)
    assert "pip install --no-cache-dir .\n" in script.read_text(encoding="utf-8")
    module = re.search(r"python -m ([\w.]+)$", script.read_text(encoding="utf-8"), re.M).group(1)
    assert (ROOT / f"{module.replace('.', '/')}.py").is_file()


def test_every_chapter_takes_the_model_that_the_machine_chooses():
    for chapter in build_book.chapters():
        cells = json.loads((build_book.BOOK / f"{chapter}.ipynb").read_text(encoding="utf-8"))["cells"]
        cell = next(cell for cell in cells if "parameters" in cell["metadata"].get("tags", []))
        loads = any("sh.load(" in line for cell in cells for line in cell["source"])
        # One that grows its own model has none to choose.
        assert cell["source"][0].startswith('model = "auto"  # ') == loads, chapter
    assert build_book._ENVIRONMENT["SEMHUB_MODEL"] == "gemma-3-270m"
