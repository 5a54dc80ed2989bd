"""What a chapter found: judged against what it claimed beforehand, written, read back.

`book/claims.toml` holds every claim with its threshold and the outcome expected on the embedded model; it is
committed before the run that judges it.
"""

import json
import math
import os
import platform
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import torch
import transformers
from IPython.display import Markdown, display
from pandas.io.formats.style import Styler

from semhub_utils import cache
from semhub_utils.language_model import LanguageModel
from semhub_utils.resampling import bootstrap, interval


@dataclass(frozen=True)
class Claim:
    """One entry of claims.toml.

    It holds when the whole interval of the effect lies above the threshold `above`, below `below`, or between the
    two where both are given. `expected` is "holds", "does not hold" or "open".
    """

    id: str
    chapter: str
    statement: str
    measure: str
    layer_rule: str
    expected: str
    above: float = -math.inf
    below: float = math.inf
    reason: str = ""

    def __post_init__(self) -> None:
        if self.expected not in ("holds", "does not hold", "open"):
            raise ValueError(f"{self.id}: expected is {self.expected!r}: write 'holds', 'does not hold' or 'open'")
        if math.isinf(self.above) and math.isinf(self.below):
            raise ValueError(f"{self.id} has no threshold, so it could not fail: write `above`, `below` or both")

    def held(self, low: float, high: float) -> bool:
        """Whether an interval supports the claim."""
        return bool(self.above < low and high < self.below)


def say(text: str) -> None:
    """Show a sentence as Markdown, so that numbers in prose come from the run: `say(f"The peak is at {k}.")`."""
    display(Markdown(text))


def claims(chapter: str) -> dict[str, Claim]:
    """The claims of a chapter such as "foundations/the-hypothesis", by id, in the order of the file.

    Raises:
        KeyError: for a chapter that claims nothing, with the chapters that do.
    """
    entries = [Claim(**entry) for entry in tomllib.loads(_claims_text())["claim"]]
    found = {entry.id: entry for entry in entries if entry.chapter == chapter}
    if not found:
        known = sorted({entry.chapter for entry in entries})
        raise KeyError(f"claims.toml has nothing for the chapter {chapter!r}; it has {', '.join(known)}")
    return found


class Chapter:
    """Collects the results of one run of a chapter.

    Usage: `found = sh.results.Chapter("part/chapter", lm)`, one `found.claim(...)` for each claim of the chapter,
    and at the end `found.save()`.
    """

    def __init__(self, chapter: str, lm: LanguageModel):
        self.chapter = chapter
        self.claims = claims(chapter)
        self.results: list[dict] = []
        self._model, self._revision = lm.spec.name, lm.spec.revision
        self._run = this_run(lm)

    def claim(self, name: str, *, value: float, low: float, high: float, n: int, null: float | None) -> bool:
        """Record what was measured for one claim, and say whether it held.

        Args:
            name: the claim's id in claims.toml.
            value: the effect.
            low: the lower end of its interval.
            high: the upper end of its interval.
            n: how many items it rests on.
            null: what the control reaches, or None where the claim has none to compare with.

        Raises:
            KeyError: for a claim that claims.toml does not hold for this chapter.
            ValueError: for an interval that does not contain the value, or a number that is not finite.
        """
        if name not in self.claims:
            raise KeyError(f"{name!r} is no claim of {self.chapter}: claims.toml has {', '.join(self.claims)}")
        if not all(math.isfinite(x) for x in (value, low, high, null or 0.0)):
            raise ValueError(f"{name}: one of value {value}, low {low}, high {high}, null {null} is not finite")
        # A mean and its bootstrap interval may be rounded differently in the last place.
        if not low - 1e-9 <= value <= high + 1e-9:
            raise ValueError(f"{name}: the value {value} does not lie in its interval from {low} to {high}")
        held = self.claims[name].held(low, high)
        self.results = [r for r in self.results if r["name"] != name]
        self.results.append(
            {
                "name": name,
                "statement": self.claims[name].statement,
                "value": float(value),
                "low": float(low),
                "high": float(high),
                "n": int(n),
                "null": None if null is None else float(null),
                "model": self._model,
                "revision": self._revision,
                "held": bool(held),
            }
        )
        return held

    def mean(self, name: str, scores: Sequence[float], null: float | None = None, seed: int = 0) -> bool:
        """Record the mean of one score an item, with its 95% bootstrap interval over the items, for one claim.

        Args:
            name: the claim's id.
            scores: one number an item, two or more.
            null: what the control reaches, or None.
            seed: of the bootstrap.
        """
        low, high = interval(bootstrap(np.asarray(scores, dtype=float), seed=seed))
        # Of scores that are all the same the interval is a point, and may be rounded otherwise than the mean.
        value = float(np.clip(np.mean(scores), low, high))
        return self.claim(name, value=value, low=float(low), high=float(high), n=len(scores), null=null)

    def not_judged(self, name: str, why: str) -> None:
        """Record that this run could not judge a claim, such as for want of a package; it neither held nor failed.

        Raises:
            KeyError: for a claim that claims.toml does not hold for this chapter.
        """
        if name not in self.claims:
            raise KeyError(f"{name!r} is no claim of {self.chapter}: claims.toml has {', '.join(self.claims)}")
        about = {"model": self._model, "revision": self._revision, "not_judged": why}
        self.results = [r for r in self.results if r["name"] != name]
        self.results.append({"name": name, "statement": self.claims[name].statement, "held": None} | about)

    def table(self) -> Styler:
        """The chapter's claims with what this run found, for the reader."""
        rows = pd.DataFrame([as_text(result) for result in self.results])
        return rows.style.hide(axis="index").format(escape="html")  # a frame would cut the statements

    def save(self) -> Path:
        """Write the results, with `this_run` and the time and memory that the process took, and return the file.

        Raises:
            ValueError: if a claim of the chapter was not recorded.
        """
        missing = [name for name in self.claims if name not in {r["name"] for r in self.results}]
        if missing:
            raise ValueError(f"{self.chapter} claims {', '.join(missing)} and this run did not measure it")
        seconds = round(time.time() - psutil.Process().create_time(), 1)
        about = {"seconds": seconds, "peak_mb": _peak_mb()} | self._run
        path = folder() / f"{self.chapter}.json"
        cache.write_text(path, json.dumps([r | about for r in self.results], indent=1, ensure_ascii=False) + "\n")
        return path


def this_run(lm: LanguageModel) -> dict:
    """When, on what machine and with which versions the numbers of this run are made.

    Returns:
        `date` (UTC, such as "2026-01-31T12:00:00Z"), `machine` in words, without its name in a network, and
        `versions` of Python and of the packages that decide a number.
    """
    packages = {"torch": torch, "transformers": transformers, "numpy": np}
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": _machine(lm.device),
        "versions": {"Python": platform.python_version()} | {k: str(m.__version__) for k, m in packages.items()},
    }


def as_text(result: dict) -> dict[str, str]:
    """One result as a reader sees it, a cell for each column of a table."""
    if result["held"] is None:
        empty = dict.fromkeys(("effect", "95% interval", "n", "control"), "")
        return {"claim": result["statement"]} | empty | {"held": f"not judged: {result['not_judged']}"}
    digits = 3 if max(abs(result["low"]), abs(result["high"])) < 0.1 else 2  # a small difference of cosines
    return {
        "claim": result["statement"],
        "effect": f"{result['value']:.{digits}f}",
        "95% interval": f"{result['low']:.{digits}f} to {result['high']:.{digits}f}",
        "n": str(result["n"]),
        "control": "none" if result["null"] is None else f"{result['null']:.{digits}f}",
        "held": "yes" if result["held"] else "no",
    }


def read(chapter: str) -> list[dict]:
    """The saved results of a chapter.

    Raises:
        FileNotFoundError: if the chapter has not run here yet.
    """
    path = folder() / f"{chapter}.json"
    if not path.exists():
        raise FileNotFoundError(f"no results of {chapter} at {path}: run the chapter first, or `make book`")
    return json.loads(path.read_text(encoding="utf-8"))


def differences(chapter: str) -> list[str]:
    """What a run found otherwise than claims.toml expects, a sentence each.

    An open claim never differs, nor one that the run says it could not judge.
    """
    found = {result["name"]: result["held"] for result in read(chapter)}
    judged = {name: held for name, held in found.items() if held is not None}
    entries = claims(chapter).values()
    missing = [f"{c.id} was not measured: {c.statement}" for c in entries if c.id not in found]
    return missing + [
        f"{claim.id} was expected to {'hold' if claim.expected == 'holds' else 'fail'} and did not: {claim.statement}"
        for claim in entries
        if claim.id in judged and claim.expected != "open" and judged[claim.id] != (claim.expected == "holds")
    ]


def folder() -> Path:
    """Where results go: `$SEMHUB_RESULTS`, or `_build/results` of the book around here, or `results` here."""
    if given := os.environ.get("SEMHUB_RESULTS"):
        return Path(given)
    root = _book_root()
    return root / "_build" / "results" if root else Path("results")


def _book_root() -> Path | None:
    here = Path.cwd().resolve()
    return next((up for up in (here, *here.parents) if (up / "book" / "claims.toml").is_file()), None)


def _claims_text() -> str:
    # In a clone the file of the book counts; in a wheel, as on Colab, the copy that was packed with it.
    root = _book_root()
    package = Path(__file__).parent
    places = [*([root / "book"] if root else []), package, package.parent / "book"]
    source = next(place / "claims.toml" for place in places if (place / "claims.toml").is_file())
    return source.read_text(encoding="utf-8")


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.device_count()} GPU, {torch.cuda.get_device_name(device)}"
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    # Of Linux only this file has the name; where it has none, as on ARM, the architecture must do.
    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{cores} CPU cores, {next(iter(names), platform.machine())}"


def _peak_mb() -> int:
    if sys.platform == "win32":
        return round(psutil.Process().memory_info().peak_wset / 2**20)
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))
