"""One declaration, two explorers: live controls where a kernel runs, and a page whose controls answer without one.

For the page every combination of the choices is computed, and the page carries the results: a Vega-Lite chart whose
bound parameters filter them, or texts and tables of which the controls show one.
"""

import datetime
import html
import inspect
import itertools
import os
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any

import ipywidgets
import numpy as np
import pandas as pd
from IPython.display import HTML, display
from tqdm import tqdm

from semhub_utils import page
from semhub_utils.language_model import LanguageModel
from semhub_utils.page import Result

# Set to 0 where nobody can turn a knob: the build of the book, and tests of whole chapters.
_SWITCH = "SEMHUB_WIDGETS"
# What one explorer may add to a page, so that a phone on a poor line opens it.
_ROWS, _BYTES = 5_000, 200_000
# Names that a Vega view uses for itself.
_RESERVED = {"autosize", "background", "cursor", "data", "datum", "event", "height", "item", "padding", "width"}


def explore(lm: LanguageModel, show: Callable[..., Result], see: str, /, **choices: Iterable) -> "Explorer":
    """Let the reader choose the arguments of a function and see what it returns, with a kernel and without one.

    Write it at the end of a cell. With a kernel it becomes controls that call `show` again at each change. In the
    build of the book (`SEMHUB_WIDGETS=0`) it computes every combination and becomes part of the page.

    Args:
        lm: the model that the results come from; it is named below them.
        show: gives an Altair chart of one panel over one data frame, a text, a data frame or a `theme.Table` for one
            choice. A chart may change its data and its title with the choice, and nothing else. The defaults of its
            arguments are the choice shown first; an argument without one starts at its first choice.
        see: one sentence that says what to see; it is the caption, and describes a chart to who cannot see it.
        choices: for each argument of `show` its values, or a dict from what the reader reads to the value. Numbers at
            even steps become a slider, all else a list.

    Raises:
        ValueError: for an argument without choices, a default that is not among them, or a name that Vega uses; and,
            when the page is made, for more than 5,000 rows or 200 KB, naming what to thin.
        TypeError: for a result of another kind, or a chart that does not carry one data frame.
    """
    return Explorer(lm, show, see, choices)


class Explorer:
    """A function, the choices for its arguments, and what it gives for each: see `explore`."""

    def __init__(self, lm: LanguageModel, show: Callable[..., Result], see: str, choices: Mapping[str, Iterable]):
        self.name = show.__name__.strip("_<>").replace("_", "-")
        self.show, self.see = show, see
        self.choices = {name: _labelled(values) for name, values in choices.items()}
        empty = [name for name, values in self.choices.items() if not values]
        if empty or not self.choices:
            raise ValueError(f"{self.name}: no choices for {', '.join(empty) or 'any argument'}: give at least one")
        if taken := _RESERVED & self.choices.keys():
            raise ValueError(f"{self.name}: Vega has its own {', '.join(sorted(taken))}: rename the argument")
        self.default = {name: self._first(name) for name in self.choices}
        revision = lm.spec.revision
        short = revision if len(revision) < 24 else f"{revision[:19]}…"
        self._made = f'{html.escape(lm.spec.name)}, <span title="{html.escape(revision)}">{html.escape(short)}</span>'
        self._sweep: dict[tuple, Result] = {}

    def controls(self) -> dict[str, ipywidgets.Widget]:
        """A live control for each argument; a slider waits until it is let go, since a layer may take a second."""
        return {name: _widget(name, labels, self.default[name]) for name, labels in self.choices.items()}

    def live(self) -> ipywidgets.interactive:
        """The controls, and below them what `show` gives for where they stand."""
        return ipywidgets.interactive(self.show, {"auto_display": True}, **self.controls())

    def sweep(self) -> dict[tuple, Result]:
        """What `show` gives for every combination of the choices, by their labels in the order of the controls."""
        if not self._sweep:
            every = list(itertools.product(*self.choices.values()))
            default = tuple(self.default.values())
            self._check_rows(len(every), self._at(default))  # one call tells before thousands are made
            self._sweep = {labels: self._at(labels) for labels in tqdm(every, desc=self.name, leave=False)}
        return self._sweep

    def page(self) -> str:
        """The explorer as HTML: its controls, the default state with its values as text, and all other states."""
        sweep = self.sweep()
        try:
            chart = page.is_chart(sweep[tuple(self.default.values())])
            body = page.chart(sweep, self._params(), self.see) if chart else page.texts(sweep, self._params())
        except TypeError as error:
            raise TypeError(f"{self.name}: {error}") from error
        if (size := len(body.encode())) > _BYTES:
            raise ValueError(
                f"{self.name}: {size / 1000:.0f} KB, and a page carries at most {_BYTES // 1000}: "
                f"{self._longest()}, or round what it shows"
            )
        day = datetime.datetime.now(datetime.UTC).date()
        return (
            f'<figure class="semhub-explorer" id="explore-{self.name}">{body}<figcaption>{html.escape(self.see)} '
            f"<small>Computed with {self._made}, {day}.</small></figcaption></figure>"
        )

    def verify(self) -> int:
        """Turn every live control to every choice, and compare what it shows with the page.

        Returns:
            The number of states compared.

        Raises:
            AssertionError: naming the choice, if a live result differs from the sweep by more than a rounding error:
                `show` then leans on something that changed in the notebook since.
        """
        controls, compared = self.controls(), 0
        on_page = {page.key(labels): result for labels, result in self.sweep().items()}
        for control in controls.values():
            first = control.value
            for _, value in control.options:
                control.value = value
                at = page.key(c.options[c.index][0] for c in controls.values())
                if not _same(self.show(**{name: c.value for name, c in controls.items()}), on_page[at]):
                    raise AssertionError(f"{self.name} shows something else live than on the page at {at}")
                compared += 1
            control.value = first
        return compared

    def _ipython_display_(self) -> None:
        if os.environ.get(_SWITCH) == "0":
            display(HTML(self.page()))
            return
        note = f"<p>{html.escape(self.see)} <small>Computed with {self._made}, as you turn.</small></p>"
        display(self.live(), HTML(note))

    def _first(self, name: str) -> Any:
        arguments = inspect.signature(self.show).parameters
        if name not in arguments:
            raise ValueError(f"{self.name} has no argument {name!r}: it has {', '.join(arguments)}")
        given = arguments[name].default
        labels = self.choices[name]
        if given is inspect.Parameter.empty:
            return next(iter(labels))
        if not (found := [label for label, value in labels.items() if value == given]):
            raise ValueError(f"{self.name}: the default {name}={given!r} is none of {list(labels.values())}")
        return found[0]

    def _at(self, labels: tuple) -> Result:
        arguments = {name: self.choices[name][label] for name, label in zip(self.choices, labels, strict=True)}
        result = self.show(**arguments)
        if not isinstance(result, Result):
            kind = type(result).__name__
            raise TypeError(f"{self.name}: {arguments} gives a {kind}: return a chart of one panel, a table or a text")
        return result

    def _check_rows(self, states: int, result: Result) -> None:
        rows = len(page.frame_of(result)) if page.is_chart(result) else 1
        if states * rows > _ROWS:
            raise ValueError(
                f"{self.name}: {states} states of {rows} rows are {states * rows:,}, and a page carries at most "
                f"{_ROWS:,}: {self._longest()}"
            )

    def _longest(self) -> str:
        name = max(self.choices, key=lambda name: len(self.choices[name]))
        return f"thin {name}, which has {len(self.choices[name])} choices"

    def _params(self) -> list[dict]:
        """The controls as Vega-Lite writes them."""
        params = []
        for name, labels in self.choices.items():
            bind: dict[str, Any] = {"name": name.replace("_", " "), "input": "select", "options": list(labels)}
            if step := _even(labels):
                bind = {"name": bind["name"], "input": "range", "min": min(labels), "max": max(labels), "step": step}
            params.append({"name": name, "value": self.default[name], "bind": bind})
        return params


def _labelled(values: Iterable) -> dict:
    if isinstance(values, Mapping):
        return dict(values)
    listed = [values] if isinstance(values, str) else [v.item() if isinstance(v, np.generic) else v for v in values]
    return {value if isinstance(value, Real) else str(value): value for value in listed}


def _even(labels: Iterable) -> float | int:
    """The step between numbers that are evenly spaced, or 0."""
    if not all(isinstance(label, Real) and not isinstance(label, bool) for label in labels):
        return 0
    steps = np.diff(sorted(labels))
    return steps[0].item() if len(steps) > 1 and np.allclose(steps, steps[0]) else 0


def _widget(name: str, labels: dict, first: Any) -> ipywidgets.Widget:
    pairs = [(str(label), labels[label]) for label in (sorted(labels) if _even(labels) else labels)]
    kind = ipywidgets.SelectionSlider if _even(labels) else ipywidgets.Dropdown
    options = {"continuous_update": False} if _even(labels) else {}
    return kind(options=pairs, value=labels[first], description=name.replace("_", " "), **options)


def _same(one: Any, other: Any) -> bool:
    if not page.is_chart(one):
        return page.text(one) == page.text(other)
    (spec, a, title), (other_spec, b, other_title) = page.split(one), page.split(other)
    try:
        pd.testing.assert_frame_equal(a, b, rtol=1e-4, atol=1e-6)
    except AssertionError:
        return False
    return (spec, title) == (other_spec, other_title)
