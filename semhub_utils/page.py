"""The HTML of an explorer: what `explore` puts into a page, and `book/_static/explore.js` brings to life there."""

import html
import json
import math
from collections.abc import Iterable
from typing import Any, TypeAlias

import altair as alt
import numpy as np
import pandas as pd

from semhub_utils.theme import SHADES, Table

Result: TypeAlias = alt.Chart | alt.LayerChart | Table | pd.DataFrame | str
# What was computed for each state, and for each choice what the reader chooses from.
Sweep = dict[tuple[int, ...], Any]
Labels = dict[str, list]


def is_chart(result: Any) -> bool:
    """Whether a result is a chart and not a text or a table."""
    return isinstance(result, alt.TopLevelMixin)


def frame_of(chart: Any) -> pd.DataFrame:
    """The data of a chart."""
    if not isinstance(chart.data, pd.DataFrame):
        raise TypeError("the chart has no data frame of its own: give `data=frame` to the outermost chart")
    return chart.data


def split(chart: Any) -> tuple[dict, pd.DataFrame, str]:
    """A chart as its specification without data and title, its data, and its title."""
    frame = frame_of(chart)
    bare = chart.copy(deep=False)
    bare.data = frame.head(1)  # the types of the columns are read from it
    spec = bare.to_dict()
    if panels := {"row", "column", "facet"} & spec.get("encoding", {}).keys():
        raise TypeError(f"a chart with {panels.pop()} has no one width to fit a phone: return one panel")
    for name in ("data", "datasets"):
        spec.pop(name, None)
    if any("data" in layer for layer in spec.get("layer", [])):
        raise TypeError("a layer of the chart has data of its own: put all of it into one frame")
    title = spec.pop("title", "")
    title = title["text"] if isinstance(title, dict) else title
    return spec, frame, " ".join(title) if isinstance(title, list) else title


def chart(sweep: Sweep, labels: Labels, default: tuple[int, ...], params: list[dict], see: str) -> str:
    """A chart over a sweep: one Vega-Lite specification with a bound parameter for each choice, and its first state.

    Args:
        sweep: a chart for each state.
        labels: what the reader chooses from, in the order of the indexes of a state.
        default: the state shown first.
        params: the choices as Vega-Lite's parameters.
        see: the sentence that describes the chart.

    Raises:
        TypeError: for charts that differ in more than data and title, or a column that is named as a choice.
    """
    states = {at: split(chart) for at, chart in sweep.items()}
    spec, first, title = states[default]
    if odd := [at for at, (other, _, _) in states.items() if other != spec]:
        at = ", ".join(str(labels[name][i]) for name, i in zip(labels, odd[0], strict=True))
        raise TypeError(
            f"at {at} more of the chart differs than its data and its title, or a column of the data has other types"
        )
    if taken := labels.keys() & set(first):
        raise TypeError(f"{', '.join(sorted(taken))} is a choice and a column of the data: rename the column")
    rows = [
        dict(zip(labels, (options[i] for options, i in zip(labels.values(), at, strict=True)), strict=True)) | row
        for at, (_, frame, _) in states.items()
        for row in _records(frame)
    ]
    chosen = " && ".join(f"datum.{name} === {name}" for name in labels)
    titles = {_key(at): title for at, (_, _, title) in states.items()}
    spec = spec | {
        "data": {"values": rows},
        "params": [*params, *spec.get("params", [])],
        "transform": [{"filter": chosen}, *spec.get("transform", [])],
        "width": "container",
        "autosize": {"type": "fit-x", "contains": "padding"},
        "description": f"{see} At first: {_state(params)}.",
        "usermeta": {"choices": labels, "columns": list(first), "titles": titles},
    }
    alt.Chart.from_dict(spec)  # raises where it is no Vega-Lite
    values = _crosstab(pd.DataFrame(_records(first), columns=list(first), dtype=object)).to_html()
    return (
        f'<p class="semhub-title" role="status">{html.escape(title)}</p><form class="semhub-controls"></form>'
        f'<div class="semhub-chart"></div><details class="semhub-values"><summary>The values, at '
        f"<span>{html.escape(_state(params))}</span></summary>{values}</details>{_carried(spec)}"
    )


def texts(sweep: Sweep, labels: Labels, default: tuple[int, ...], params: list[dict]) -> str:
    """Texts or tables over a sweep: all of them, of which the page shows the one that is chosen."""
    states = {_key(at): text(result) for at, result in sweep.items()}
    templates = "".join(f'<template data-state="{name}">{one}</template>' for name, one in states.items())
    shaded = any(" class=s" in one for one in states.values())
    return (
        f'{SHADES if shaded else ""}<form class="semhub-controls"></form>'
        f'<p class="semhub-state" role="status">{html.escape(_state(params))}</p>'
        f'<div class="semhub-text">{states[_key(default)]}</div>{templates}'
        f"{_carried({'params': params, 'usermeta': {'choices': labels}})}"
    )


def text(result: Table | pd.DataFrame | str, style: bool = False) -> str:
    """A text or a table as HTML, everything in it escaped."""
    if isinstance(result, str):
        return f"<p>{html.escape(result)}</p>"
    table = result if isinstance(result, Table) else Table(result.map(_short))
    return table.to_html(style=style)


def same(one: Result, other: Result) -> bool:
    """Whether two results show the same, but for rounding errors."""
    if not (is_chart(one) and is_chart(other)):
        return not is_chart(one) and not is_chart(other) and text(one) == text(other)
    (spec, a, title), (other_spec, b, other_title) = split(one), split(other)
    try:
        pd.testing.assert_frame_equal(a, b, rtol=1e-4, atol=1e-6)
    except AssertionError:
        return False
    return (spec, title) == (other_spec, other_title)


def _key(at: Iterable[int]) -> str:
    return "|".join(map(str, at))


def _state(params: list[dict]) -> str:
    """The first state as a reader sees it."""
    return ", ".join(f"{p['bind']['name']} {p['value']}" for p in params)


def _carried(content: dict) -> str:
    # A "<" could end the script element, wherever it stands in the data.
    dumped = json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json">{dumped}</script>'


def _records(frame: pd.DataFrame) -> list[dict]:
    """The rows as JSON takes them: four significant digits, and None for what is no number."""
    columns = {name: [_plain(value) for value in frame[name].tolist()] for name in frame}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, float):
        return float(f"{value:.4g}")
    return value if isinstance(value, (int, str, bool)) else str(value)


def _short(value: Any) -> str:
    """A value as the script writes it too: numbers that are no integers to three digits."""
    value = _plain(value)
    if isinstance(value, float) and not value.is_integer():
        short = float(f"{value:.3g}")
        return np.format_float_positional(short, trim="-") if abs(short) >= 1e-6 else f"{short:g}".replace("e-0", "e-")
    return "" if value is None else str(int(value) if isinstance(value, float) else value)


def _crosstab(frame: pd.DataFrame) -> Table:
    """The values of a chart as text: three columns become rows, columns and cells, others stay a list."""
    names, cells = list(frame), frame.map(_short)
    if len(names) != 3 or frame.duplicated(names[:2]).any():
        return Table(cells.set_index(names[0]))
    index, columns, values = names
    order = {"index": cells[index].unique(), "columns": cells[columns].unique()}  # as they come
    return Table(cells.pivot(index=index, columns=columns, values=values).reindex(**order).fillna(""))
