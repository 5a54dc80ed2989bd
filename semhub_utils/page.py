"""The HTML of an explorer: what `explore` puts into a page, and `book/_static/explore.js` brings to life there."""

import html
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from semhub_utils.theme import SHADES, Table

Result = alt.Chart | alt.LayerChart | Table | pd.DataFrame | str


def is_chart(result: Any) -> bool:
    """Whether a result is a chart and not a text or a table."""
    return isinstance(result, alt.TopLevelMixin)


def key(labels: Iterable) -> str:
    """A state as a text, as the script builds it from its controls."""
    return "|".join(map(str, labels))


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
    return spec, frame, title["text"] if isinstance(title, dict) else title


def chart(sweep: Mapping[tuple, Any], params: list[dict], see: str) -> str:
    """A chart over a sweep: one Vega-Lite specification with a bound parameter for each choice, and its first state.

    Args:
        sweep: a chart for each combination of labels.
        params: the choices as Vega-Lite's parameters, in the order of the labels.
        see: the sentence that describes the chart.

    Raises:
        TypeError: for charts that differ in more than data and title, or a column that is named as a choice.
    """
    states = {labels: split(chart) for labels, chart in sweep.items()}
    names, default = [p["name"] for p in params], tuple(p["value"] for p in params)
    spec, first, title = states[default]
    if odd := [labels for labels, (other, _, _) in states.items() if other != spec]:
        raise TypeError(f"at {odd[0]} more of the chart differs than its data and its title")
    if taken := set(names) & set(first):
        raise TypeError(f"{', '.join(sorted(taken))} is a choice and a column of the data: rename the column")
    frames = [frame.assign(**dict(zip(names, labels, strict=True))) for labels, (_, frame, _) in states.items()]
    chosen = " && ".join(f"datum.{name} === {name}" for name in names)
    spec = spec | {
        "data": {"values": _records(pd.concat(frames))},
        "params": [*params, *spec.get("params", [])],
        "transform": [{"filter": chosen}, *spec.get("transform", [])],
        "width": "container",
        "autosize": {"type": "fit-x", "contains": "padding"},
        "description": f"{see} At first: {words(params)}.",
        "usermeta": {"columns": list(first), "titles": {key(k): title for k, (_, _, title) in states.items()}},
    }
    alt.Chart.from_dict(spec)  # raises where it is no Vega-Lite
    values = _crosstab(pd.DataFrame(_records(first), columns=list(first))).to_html()
    return (
        f'<p class="semhub-title">{html.escape(title)}</p><form class="semhub-controls"></form>'
        f'<div class="semhub-chart"></div><details class="semhub-values"><summary>The values, at '
        f"<span>{html.escape(words(params))}</span></summary>{values}</details>{_carried(spec)}"
    )


def texts(sweep: Mapping[tuple, Any], params: list[dict]) -> str:
    """Texts or tables over a sweep: all of them, of which the page shows the one that is chosen."""
    states = {key(labels): text(result) for labels, result in sweep.items()}
    templates = "".join(f'<template data-state="{html.escape(name)}">{one}</template>' for name, one in states.items())
    first = states[key(p["value"] for p in params)]
    return (
        f'{SHADES if "class=s" in first else ""}<form class="semhub-controls"></form>'
        f'<p class="semhub-print">{html.escape(words(params))}</p>'
        f'<div class="semhub-text" role="status">{first}</div>{templates}{_carried({"params": params})}'
    )


def text(result: Table | pd.DataFrame | str) -> str:
    """A text or a table as HTML, everything in it escaped."""
    if isinstance(result, str):
        return f"<p>{html.escape(result)}</p>"
    table = result if isinstance(result, Table) else Table(result.map(_short))
    return table.to_html(style=False)


def words(params: list[dict]) -> str:
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
    if isinstance(value, float):
        return float(f"{value:.4g}") if np.isfinite(value) else None
    return value if isinstance(value, (int, str, bool)) or value is None else str(value)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.3g}"
    return "" if value is None else str(value)


def _crosstab(frame: pd.DataFrame) -> Table:
    """The values of a chart as text: three columns become rows, columns and cells, others stay a list."""
    names = list(frame)
    if len(names) != 3 or frame.duplicated(names[:2]).any():
        return Table(frame.set_index(names[0]).map(_short))
    index, columns, values = names
    order = {"index": frame[index].unique(), "columns": frame[columns].unique()}  # as they come
    return Table(frame.pivot(index=index, columns=columns, values=values).reindex(**order).map(_short))
