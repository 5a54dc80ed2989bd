"""The notation of COGS (Kim and Linzen 2020): its files, and for each form others that are hard to tell from it.

A form is a list of facts joined by AND, behind the definite nouns, each with a star:

    * cake ( x _ 3 ) ; give . agent ( x _ 1 , Emma ) AND give . theme ( x _ 1 , x _ 3 )
"""

import re
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd


def cogs(source: str | Path, seed: int = 0) -> pd.DataFrame:
    """The real COGS (Kim and Linzen 2020): a file such as `dev.tsv` of its repository, najoungkim/COGS.

    Args:
        source: a path, or an https address; lines of a sentence, a form and a kind, with tabs between.
        seed: of the order in `reordered`.

    Returns:
        A frame with `construction` (the kind of the file, such as "in_distribution"), `sentence` and what `variants`
        adds to its `form`.

    Raises:
        FileNotFoundError: for a path without a file.
        RuntimeError: for an address, or a file, that cannot be read.
        ValueError: for a line that has not three parts, with its number.
    """
    try:
        if str(source).startswith("https://"):
            with urllib.request.urlopen(str(source), timeout=60) as answer:
                lines = answer.read().decode().splitlines()
        else:
            lines = Path(source).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{source} is not there: give a file such as dev.tsv of najoungkim/COGS") from error
    except OSError as error:
        raise RuntimeError(f"{source} cannot be read ({error}): check the network, or give a path to a copy") from error
    rows = [line.split("\t") for line in lines]
    wrong = [number for number, row in enumerate(rows, 1) if len(row) != 3]
    if wrong:
        raise ValueError(f"line {wrong[0]} of {source} is {lines[wrong[0] - 1]!r}: each line is sentence, form, kind")
    return variants(pd.DataFrame(rows, columns=["sentence", "form", "construction"]), seed)


def variants(frame: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """The frame with columns made from its `form`: the names, their roles, and three forms to compare it with.

    Adds:
        names: the different names of the form, in the order in which it has them.
        roles: for each of them its roles, such as {"Emma": ("give.agent",)}.
        swapped: the form with its two names in each other's place; missing unless there are exactly two.
        reordered: the same facts in another, random order; with two names, in one that has the other name first.
            Missing where there is only one fact.
        shuffled: `swapped` in the order of `reordered`, so that its names come in the order of the form.

    `form` and `reordered` mean the same; `swapped` and `shuffled` mean the same; all four have the same words.
    """
    rng = np.random.default_rng(seed)
    names = [names_of(form) for form in frame["form"]]
    reordered = [_reorder(form, of, rng) for form, of in zip(frame["form"], names, strict=True)]
    frame = frame.assign(names=names, roles=[_roles(form) for form in frame["form"]])
    frame["swapped"] = [_swap(form, of) for form, of in zip(frame["form"], names, strict=True)]
    frame["reordered"] = reordered
    frame["shuffled"] = [form and _swap(form, of) for form, of in zip(reordered, names, strict=True)]
    return frame


def facts(form: str) -> tuple[str, list[str]]:
    """The definite nouns of a form as they stand before the facts ("* cake ( x _ 3 ) ; " or ""), and its facts."""
    start = form.rfind(" ; ") + 3 if " ; " in form else 0
    return form[:start], form[start:].split(" AND ")


def names_of(form: str) -> tuple[str, ...]:
    """The different names in a form, in order."""
    return tuple(dict.fromkeys(re.findall(r", (\S+) \)", form)))


def _roles(form: str) -> dict[str, tuple[str, ...]]:
    found = re.findall(r"(\S+) \. (\w+) \( x _ \d+ , (\S+) \)", form)
    return {name: tuple(f"{verb}.{role}" for verb, role, who in found if who == name) for name in names_of(form)}


def _swap(text: str, names: Sequence[str]) -> str | None:
    if len(names) != 2:
        return None
    other = dict(zip(names, reversed(names), strict=True))
    return " ".join(other.get(word, word) for word in text.split(" "))


def _reorder(form: str, names: Sequence[str], rng: np.random.Generator) -> str | None:
    definites, old = facts(form)
    if len(old) < 2:
        return None
    new = old
    while new == old:
        new = [old[i] for i in rng.permutation(len(old))]
        if len(names) == 2 and names_of(" AND ".join(new)) == tuple(names):
            ahead = next(fact for fact in new if names_of(fact) == (names[1],))
            new = [ahead, *(fact for fact in new if fact != ahead)]
    return definites + " AND ".join(new)
