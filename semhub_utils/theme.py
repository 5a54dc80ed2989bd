"""How the book's figures look: one palette that the colour-blind can read, and one place that sets it."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat

import altair as alt
import matplotlib as mpl
import pandas as pd
from cycler import cycler

# Okabe and Ito (2008), the order changed so that the first few differ most in lightness too.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442"]
GREY = "#6b6b6b"
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]

# A white card with dark ink reads in both of the site's modes; a transparent figure would lose its labels in one.
_MATPLOTLIB = {
    "figure.dpi": 110,
    "figure.figsize": (7.5, 4.2),
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "white",
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.labelsize": 11,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "legend.frameon": False,
    "font.size": 10.5,
}


def use() -> None:
    """Set the book's look for matplotlib and for Altair."""
    mpl.rcParams.update(_MATPLOTLIB)  # type: ignore[arg-type]
    alt.theme.enable("semhub")


@dataclass(frozen=True)
class Table:
    """Text in cells, shaded where a cell has a probability, which shows on hover.

    Attributes:
        cells: what stands in each cell, as text; its index and columns are the headers.
        prob: a probability for each cell, or None.
        caption: the sentence above.
    """

    cells: pd.DataFrame
    prob: pd.DataFrame | None = None
    caption: str = ""

    def to_html(self, style: bool = True) -> str:
        """The table as HTML, everything in it escaped, so that `<b>` is text; `style=False` leaves out the shades."""
        corner = " / ".join(str(name) for name in (self.cells.index.name, self.cells.columns.name) if name)
        heads = "".join(f'<th scope="col">{html.escape(str(name))}</th>' for name in self.cells.columns)
        probs = repeat(repeat(None)) if self.prob is None else self.prob.to_numpy(float)
        rows = "".join(
            f'<tr><th scope="row">{html.escape(str(name))}</th>{"".join(map(_cell, texts, shades))}</tr>'
            for name, texts, shades in zip(self.cells.index, self.cells.to_numpy(), probs, strict=False)
        )
        return (
            f'{SHADES if style and self.prob is not None else ""}<table class="semhub-table">'
            f"{self.caption and f'<caption>{html.escape(self.caption)}</caption>'}"
            f"<thead><tr><td>{html.escape(corner)}</td>{heads}</tr></thead><tbody>{rows}</tbody></table>"
            f"{'' if self.prob is None else _LEGEND.format(signs=self._signs())}"
        )

    _repr_html_ = to_html

    def _signs(self) -> str:
        """What the signs in the cells stand for, of those that are there."""
        text = "".join([*self.cells.columns.astype(str), *self.cells.to_numpy().astype(str).ravel()])
        there = [f"{sign} is {meaning}" for sign, meaning in _SIGNS.items() if sign in text]
        return f" {', '.join(there)}." if there else ""


def lens_table(top: pd.DataFrame, caption: str, columns: Sequence[str] | None = None) -> Table:
    """A lens as a table: the top token of each layer and position in its cell, shaded by its probability.

    Args:
        top: what `top_tokens` returns, for any `k`; only rank 0 is shown.
        caption: the sentence above the table.
        columns: what to write above the columns, such as the prompt's tokens; by default the positions.

    Returns:
        A table with the last block on top; the probability of a token shows on hover.
    """
    best = top[top["rank"] == 0]
    both = best.pivot(index="layer", columns="position", values=["token", "prob"]).sort_index(ascending=False)
    cells, prob = both["token"].map(visible_spaces), both["prob"].astype(float)
    if columns is not None:
        cells = cells.set_axis([visible_spaces(name) for name in columns], axis="columns")
    return Table(cells.rename_axis(columns=None), prob, caption)


def curve(frame: pd.DataFrame, title: str, top: float | None = None) -> alt.LayerChart:
    """A line with its interval and its null, as a chart for `explore`.

    Args:
        frame: what stands on the x axis, the value, and `low`, `high` and `null`, in this order, a row for each point.
        title: the finding.
        top: where an axis from zero ends, the same for every choice, so that heights compare; by default as it fits.
    """
    x, y = list(frame)[:2]
    both, key = [y, "null"], alt.Legend(title=None, symbolType="stroke")
    scale = alt.Undefined if top is None else alt.Scale(domain=(0, top))
    base = alt.Chart().encode(x=alt.X(x, type="ordinal"))
    band = base.mark_area(opacity=0.2, color=COLOURS[0]).encode(y=alt.Y("low:Q", title=y, scale=scale), y2="high:Q")
    lines: alt.Chart = base.transform_fold(both, as_=["line", "height"]).mark_line(point=alt.OverlayMarkDef(size=20))
    lines = lines.encode(
        y="height:Q",
        color=alt.Color("line:N", scale=alt.Scale(domain=both, range=[COLOURS[0], GREY]), legend=key),
        strokeDash=alt.StrokeDash("line:N", scale=alt.Scale(domain=both, range=[[1, 0], [5, 4]]), legend=key),
        tooltip=[x, *(alt.Tooltip(name, type="quantitative", format=".2f") for name in list(frame)[1:])],
    )
    return alt.LayerChart(layer=[band, lines], data=frame, title=title)


def visible_spaces(token: str) -> str:
    """A token with its leading space, line breaks and tabs made visible."""
    before = token[: len(token) - len(token.lstrip())].replace(" ", "␣")
    return (before + token.lstrip()).replace("\n", "⏎").replace("\t", "⇥")


def _cell(text: object, prob: float | None) -> str:
    if prob is None or math.isnan(prob):
        return f"<td>{html.escape(str(text))}</td>"
    return f'<td class=s{_step(prob)} title="{prob:.2g}">{html.escape(str(text))}</td>'


def _step(prob: float) -> int:
    return round(_STEPS * min(1.0, float(prob)) ** 0.5)  # the root, since most probabilities are small


def _shade(step: int) -> str:
    # White to the palette's blue; the ink is set with it, since the page around may be dark.
    red, green, blue = (round(255 + (c - 255) * step / _STEPS) for c in (0, 114, 178))
    return f"background-color: rgb({red}, {green}, {blue}); color: {'white' if step > 0.93 * _STEPS else 'black'}"


_STEPS = 15
# Classes and not styles in the cells: an explorer has thousands of them.
SHADES = "<style>" + "".join(f".semhub-table .s{step} {{{_shade(step)}}}" for step in range(_STEPS + 1)) + "</style>"

# For who cannot hover.
_LEGEND = (
    '<p class="semhub-table">The darker, the more probable: '
    + " ".join(f"<span class=s{_step(prob)}>&nbsp;{prob:.0%}&nbsp;</span>" for prob in (0.01, 0.1, 0.5, 1.0))
    + "{signs}</p>"
)
_SIGNS = {"␣": "a space", "⏎": "a new line", "⇥": "a tab", "\ufffd": "a part of a character"}


@alt.theme.register("semhub", enable=False)
def _altair() -> alt.theme.ThemeConfig:
    return alt.theme.ThemeConfig(
        config={
            "range": {"category": COLOURS},
            "background": "white",
            "axis": {"gridColor": "#e6e6e6", "labelFontSize": 12, "titleFontSize": 12},
            "axisXDiscrete": {"labelAngle": 0, "labelOverlap": "greedy", "labelSeparation": 4},
            # Above the chart, where a phone has room for it.
            "legend": {"orient": "top", "columns": 3, "labelFontSize": 12, "titleFontSize": 12, "symbolStrokeWidth": 2},
            "title": {"anchor": "start", "fontSize": 14},
            "view": {"continuousHeight": 260, "discreteHeight": 260, "strokeWidth": 0},
        }
    )
