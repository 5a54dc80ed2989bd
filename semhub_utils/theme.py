"""How the book's figures look: one palette that the colour-blind can read, and one place that sets it."""

import html
from collections.abc import Sequence

import altair as alt
import matplotlib as mpl
import pandas as pd
from cycler import cycler
from pandas.io.formats.style import Styler

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


def lens_table(top: pd.DataFrame, caption: str, columns: Sequence[str] | None = None) -> Styler:
    """A lens as a table: the top token of each layer and position in its cell, shaded by its probability.

    Args:
        top: what `top_tokens` returns, for any `k`; only rank 0 is shown.
        caption: the sentence above the table.
        columns: what to write above the columns, such as the prompt's tokens; by default the positions.

    Returns:
        A pandas Styler; the last block is on top. Tokens and columns are escaped, so that `<b>` is text.
    """
    best = top[top["rank"] == 0]
    both = best.pivot(index="layer", columns="position", values=["token", "prob"]).sort_index(ascending=False)
    tokens, prob = both["token"], both["prob"].astype(float)
    style = tokens.style.format(visible_spaces, escape="html").set_caption(html.escape(caption))
    if columns is not None:
        style = style.relabel_index([html.escape(visible_spaces(name)) for name in columns], axis="columns")
    return style.apply(lambda _: prob.map(_shade), axis=None)


def visible_spaces(token: str) -> str:
    """A token with its leading space, line breaks and tabs made visible."""
    before = token[: len(token) - len(token.lstrip())].replace(" ", "␣")
    return (before + token.lstrip()).replace("\n", "⏎").replace("\t", "⇥")


def _shade(prob: float) -> str:
    # White to the palette's blue; the ink is set with it, since the page around may be dark.
    part = min(1.0, float(prob) ** 0.5)
    red, green, blue = (round(255 + (c - 255) * part) for c in (0, 114, 178))
    return f"background-color: rgb({red}, {green}, {blue}); color: {'white' if part > 0.93 else 'black'}"


@alt.theme.register("semhub", enable=False)
def _altair() -> alt.theme.ThemeConfig:
    return alt.theme.ThemeConfig(
        config={
            "range": {"category": COLOURS},
            "background": "white",
            "view": {"strokeWidth": 0},
            "axis": {"gridColor": "#e6e6e6", "labelFontSize": 11, "titleFontSize": 12},
            "title": {"anchor": "start", "fontSize": 14},
        }
    )
