"""Controls for what a reader would want to change: live where a kernel runs, the first choice on the page."""

import os
from collections.abc import Callable, Iterable
from numbers import Real

import ipywidgets
from IPython.display import display

# Set to 0 where nobody can turn a knob: the build of the book, and tests of whole chapters.
_SWITCH = "SEMHUB_WIDGETS"


def live(show: Callable[..., object], **choices: Iterable) -> None:
    """Show `show(**choice)` under a control for each argument, and again whenever one is changed.

    Numbers get a slider and all else a list. Without a reader at the kernel (`SEMHUB_WIDGETS=0`, as in the build of
    the book) the first of each choices is shown, once and without controls, so that the page has it too.

    Args:
        show: draws or prints for one choice; what it returns, if anything, is displayed.
        choices: for each of its arguments the values to choose from, the default first.

    Raises:
        ValueError: for no arguments, or one without choices.
    """
    lists = {name: [values] if isinstance(values, str) else list(values) for name, values in choices.items()}
    empty = [name for name, values in lists.items() if not values]
    if empty or not lists:
        raise ValueError(f"choices has nothing for {', '.join(empty) or 'any argument'}: give at least one value each")
    if os.environ.get(_SWITCH) == "0":
        result = show(**{name: values[0] for name, values in lists.items()})
        if result is not None:
            display(result)
        return
    ipywidgets.interact(show, **{name: _control(name, values) for name, values in lists.items()})


def _control(name: str, values: list) -> ipywidgets.Widget:
    if all(isinstance(value, Real) and not isinstance(value, bool) for value in values):
        # Computed when the slider is let go: a layer may take a second.
        return ipywidgets.SelectionSlider(
            options=sorted(values), value=values[0], description=name, continuous_update=False
        )
    return ipywidgets.Dropdown(options=values, value=values[0], description=name)
