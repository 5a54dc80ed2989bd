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
from IPython.display import HTML, display
from tqdm import tqdm

from semhub_utils import page
from semhub_utils.language_model import LanguageModel
from semhub_utils.page import Result

# Set to 0 where nobody can turn a knob: the build of the book, and tests of whole chapters.
_SWITCH = "SEMHUB_WIDGETS"
# What one explorer may add to a page, so that a phone on a poor line opens it.
_ROWS, _BYTES = 5_000, 200_000
# Names that Vega, or Python's own methods, use for themselves.
_RESERVED = {
    "autosize",
    "background",
    "cursor",
    "data",
    "datum",
    "E",
    "event",
    "height",
    "item",
    "padding",
    "PI",
    "self",
}
_RESERVED |= {"width"}


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
            even steps become a slider, all else a list. A value may be anything, such as a steering vector.

    Raises:
        ValueError: for an argument without choices, a default that is not among them, or a name that Vega uses; and,
            when the page is made, for more than 5,000 rows or 200 KB, naming what to thin.
        TypeError: for a result of another kind, or a chart that does not carry one data frame.
    """
    return Explorer(lm, show, see, choices)


class Explorer:
    """A function, the choices for its arguments, and what it gives for each: see `explore`.

    A state is a tuple of indexes into the choices, so that no two of them can be taken for one another.
    """

    def __init__(self, lm: LanguageModel, show: Callable[..., Result], see: str, choices: Mapping[str, Iterable]):
        self.name = show.__name__.strip("_<>").replace("_", "-")
        self.show, self.see = show, see
        pairs = {name: _labelled(values) for name, values in choices.items()}
        empty = [name for name, labelled in pairs.items() if not labelled]
        if empty or not pairs:
            raise ValueError(f"{self.name}: no choices for {', '.join(empty) or 'any argument'}: give at least one")
        if taken := _RESERVED & pairs.keys():
            raise ValueError(f"{self.name}: Vega has its own {', '.join(sorted(taken))}: rename the argument")
        self.labels = {name: [label for label, _ in labelled] for name, labelled in pairs.items()}
        self.values = {name: [value for _, value in labelled] for name, labelled in pairs.items()}
        for name, labels in self.labels.items():
            if twice := sorted({str(label) for label in labels if labels.count(label) > 1}):
                raise ValueError(f"{self.name}: two choices of {name} read {', '.join(twice)}: give a dict with labels")
        self.default = tuple(self._first(name) for name in pairs)
        revision = lm.spec.revision
        short = revision if len(revision) < 24 else f"{revision[:19]}…"
        self._made = f'{html.escape(lm.spec.name)}, <span title="{html.escape(revision)}">{html.escape(short)}</span>'
        self._sweep: dict[tuple[int, ...], Result] = {}

    def controls(self) -> dict[str, ipywidgets.Widget]:
        """A live control for each argument; a slider waits until it is let go, since a layer may take a second."""
        controls = {}
        for (name, labels), first in zip(self.labels.items(), self.default, strict=True):
            options: dict[str, Any] = {"options": [(str(label), i) for i, label in enumerate(labels)], "value": first}
            if _even(labels):
                controls[name] = ipywidgets.SelectionSlider(
                    **options, description=_words(name), continuous_update=False
                )
            else:
                controls[name] = ipywidgets.Dropdown(**options, description=_words(name))
        return controls

    def live(self) -> ipywidgets.interactive:
        """The controls, and below them what `show` gives for where they stand."""

        def turned(**indexes: int) -> object:
            result = self._at(tuple(indexes[name] for name in self.labels))
            return result if page.is_chart(result) else HTML(page.text(result, style=True))

        return ipywidgets.interactive(turned, {"auto_display": True}, **self.controls())

    def sweep(self) -> dict[tuple[int, ...], Result]:
        """What `show` gives for every combination of the choices, by their indexes in the order of the controls."""
        if not self._sweep:
            every = list(itertools.product(*(range(len(labels)) for labels in self.labels.values())))
            first = self._at(self.default)
            self._check_rows(len(every), len(every) * _rows(first))  # one call tells before thousands are made
            self._sweep = {at: self._at(at) for at in tqdm(every, desc=self.name, leave=False)}
            self._check_rows(len(every), sum(map(_rows, self._sweep.values())))
        return self._sweep

    def page(self) -> str:
        """The explorer as HTML: its controls, the default state with its values as text, and all other states."""
        sweep = self.sweep()
        try:
            carried = sweep, self.labels, self.default, self._params()
            body = page.chart(*carried, self.see) if page.is_chart(sweep[self.default]) else page.texts(*carried)
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
        for control, first in zip(controls.values(), self.default, strict=True):
            for index in range(len(control.options)):
                control.index = index
                at = tuple(one.value for one in controls.values())
                if not page.same(self._at(at), self.sweep()[at]):
                    chosen = ", ".join(f"{_words(name)} {one.label}" for name, one in controls.items())
                    raise AssertionError(f"{self.name} shows something else live than on the page at {chosen}")
                compared += 1
            control.index = first
        return compared

    def _ipython_display_(self) -> None:
        if os.environ.get(_SWITCH) == "0":
            display(HTML(self.page()))
            return
        note = f"<p>{html.escape(self.see)} <small>Computed with {self._made}, as you turn.</small></p>"
        display(self.live(), HTML(note))

    def _first(self, name: str) -> int:
        arguments = inspect.signature(self.show).parameters
        if name not in arguments:
            raise ValueError(f"{self.name} has no argument {name!r}: it has {', '.join(arguments)}")
        given, values = arguments[name].default, self.values[name]
        if given is inspect.Parameter.empty:
            return 0
        # `==` of tensors is a tensor, so the very same object comes first.
        found = [i for i, value in enumerate(values) if value is given] or [
            i for i, v in enumerate(values) if v == given
        ]
        if not found:
            raise ValueError(f"{self.name}: the default {name}={given!r} is none of {values}")
        return found[0]

    def _at(self, at: tuple[int, ...]) -> Result:
        arguments = {name: values[i] for (name, values), i in zip(self.values.items(), at, strict=True)}
        result = self.show(**arguments)
        if not isinstance(result, Result):
            kind = type(result).__name__
            raise TypeError(f"{self.name}: {arguments} gives a {kind}: return a chart of one panel, a table or a text")
        return result

    def _check_rows(self, states: int, rows: int) -> None:
        if rows > _ROWS:
            raise ValueError(
                f"{self.name}: {states} states have {rows:,} rows, and a page carries at most {_ROWS:,}: "
                f"{self._longest()}"
            )

    def _longest(self) -> str:
        name = max(self.labels, key=lambda name: len(self.labels[name]))
        return f"thin {name}, which has {len(self.labels[name])} choices"

    def _params(self) -> list[dict]:
        """The controls as Vega-Lite writes them."""
        params = []
        for (name, labels), first in zip(self.labels.items(), self.default, strict=True):
            bind: dict[str, Any] = {"name": _words(name), "input": "select", "options": labels}
            if step := _even(labels):
                bind = {"name": _words(name), "input": "range", "min": labels[0], "max": labels[-1], "step": step}
            params.append({"name": name, "value": labels[first], "bind": bind})
        return params


def _words(name: str) -> str:
    return name.replace("_", " ")


def _labelled(values: Iterable) -> list[tuple[Any, Any]]:
    """Labels with their values; numbers at even steps in their order."""
    if not isinstance(values, Mapping):
        values = [(value, value) for value in ([values] if isinstance(values, str) else values)]
    else:
        values = list(values.items())
    pairs = [(_label(label), value) for label, value in values]
    return sorted(pairs, key=lambda pair: pair[0]) if _even([label for label, _ in pairs]) else pairs


def _label(value: Any) -> Any:
    """What a reader reads: a number to six digits, so that 0.1 + 0.2 is 0.3, and anything else as text."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bool) or not isinstance(value, Real):
        return str(value)
    short = float(f"{float(value):.6g}")
    return int(short) if short.is_integer() else short


def _even(labels: list) -> float | int:
    """The step between numbers that are evenly spaced, or 0."""
    if len(labels) < 3 or not all(isinstance(label, Real) for label in labels):
        return 0
    steps = np.diff(sorted(labels))
    return _label(steps.mean()) if np.allclose(steps, steps[0], rtol=1e-3) else 0


def _rows(result: Result) -> int:
    return len(page.frame_of(result)) if page.is_chart(result) else 1
