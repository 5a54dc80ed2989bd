"""The registry is the one place that names a model or a family, and what it says of sizes is so (test_models_page)."""

import ast
import re
from pathlib import Path

import semhub_utils as sh
from semhub_utils import registry

FAMILY = re.compile(
    r"llama|gemma|qwen|bloom|gpt|llava|chameleon|idefics|smol|baichuan|cohere|granite|mistral|phi\b|olmo", re.I
)
# The registry; the mapping of one family onto another; the embedded models, which are those of the book itself; and the
# models that the book grows, which are of one class and no other.
MAY = {"registry.py", "baichuan.py", "embedded.py", "stitched.py", "grow.py"}


def names_in(path):
    """Every name and every text of the code of a file, without its comments and docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documented = [
        node.body[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in documented:
            yield node.value
        for field in ("id", "attr", "arg", "name", "module"):
            if isinstance(getattr(node, field, None), str):
                yield getattr(node, field)


def test_nothing_else_names_a_family():
    found = {}
    for path in sorted(Path(sh.__file__).parent.rglob("*.py")):
        # The module of the mapping may be called by its name.
        named = {
            name for name in names_in(path) if FAMILY.search(name) and name not in ("baichuan", "semhub_utils.baichuan")
        }
        if named:
            found[path.name] = named
    assert {name: names for name, names in found.items() if name not in MAY} == {}
    assert {"registry.py", "embedded.py"} <= found.keys(), "the trap of this test is not set"


def test_the_families_and_the_choices_are_those_of_the_registry():
    for takes, pair in registry.AUTO.items():
        assert all(takes in sh.REGISTRY[name].takes for name in pair)
    assert registry.AUTO["text"][0] == registry.DEFAULT
    assert {family.kind for family in registry.FAMILIES.values()} == {"image", "audio"}


def test_every_commit_is_whole():
    for spec in sh.REGISTRY.values():
        assert re.fullmatch(r"sha256:[0-9a-f]{64}|[0-9a-f]{40}|main", spec.revision), spec.name


def test_the_memory_is_what_rounding_leaves():
    spec = sh.ModelSpec("one", "org/one", parameters=10 * 10**9, matrices=8 * 10**9)
    assert spec.gigabytes() == 20
    assert spec.gigabytes(None, 4) == 40
    assert spec.gigabytes("8bit") == 8 + 4
    assert spec.gigabytes("4bit") == 4.5 + 4
    assert spec.gigabytes("4bit", 4) == 4.5 + 8
    assert not spec.gated
    assert sh.REGISTRY["llama-3-8b"].gated
