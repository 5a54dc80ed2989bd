"""The status page: what each chapter cost in this build, and what came of every claim."""

from collections.abc import Iterable
from datetime import datetime

from semhub_utils import results

_INTRODUCTION = """\
# Status

This page is written by the build, from what the chapters recorded in the run that made their pages.

## The chapters in this build
"""
_CLAIMS = """\
## Every claim

Each chapter fixes what it claims in `book/claims.toml` before the run that judges it. An effect is given with its \
95% interval. The control beside it is what chance or the comparison reaches, and *expected* is what the file foresaw \
on the embedded model.
"""


def status(titles: dict[str, str]) -> str:
    """The page as Markdown, for chapters such as "foundations/the-hypothesis" and their titles, in reading order."""
    found = {chapter: results.read(chapter) for chapter in titles}
    lines = [_INTRODUCTION, *_table([{"chapter": _link(c, titles[c])} | _cost(found[c][0]) for c in titles]), ""]
    lines += [_CLAIMS]
    for chapter, title in titles.items():
        expected = {claim.id: claim.expected for claim in results.claims(chapter).values()}
        rows = [_with_expected(results.as_text(result), expected[result["name"]]) for result in found[chapter]]
        lines += [f"### {title}", "", *_table(rows), ""]
    return "\n".join(lines)


def _cost(result: dict) -> dict[str, str]:
    date = datetime.fromisoformat(result["date"])
    return {
        "model": result["model"],
        "time": f"{result['seconds']:.0f} s",
        "peak memory": f"{result['peak_mb'] / 1024:.1f} GB",
        "run on (UTC)": f"{date:%Y-%m-%d %H:%M}",
        "machine": result["machine"],
        "versions": ", ".join(f"{name} {version}" for name, version in result["versions"].items()),
    }


def _with_expected(cells: dict[str, str], expected: str) -> dict[str, str]:
    return {name: cell for name, cell in cells.items() if name != "held"} | {
        "expected": expected,
        "held": cells["held"],
    }


def _link(chapter: str, title: str) -> str:
    return f"[{title}](../{chapter}.ipynb)"


def _table(rows: list[dict[str, str]]) -> list[str]:
    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    return [line(rows[0]), f"|{'---|' * len(rows[0])}", *[line(row.values()) for row in rows]]
