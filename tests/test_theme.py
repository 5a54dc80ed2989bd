import re

import altair as alt
import matplotlib as mpl
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from hypothesis import given, settings
from hypothesis import strategies as st

import semhub_utils as sh
from semhub_utils import theme


def luminance(colour):
    """WCAG 2.2's relative luminance of (red, green, blue) out of 255."""
    parts = [c / 255 for c in colour]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def rgb(colour):
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def frame(tokens, probs=None):
    """As `top_tokens` gives it, for two layers and as many positions as there are tokens."""
    rows = []
    for layer in (0, 1):
        for position, token in enumerate(tokens):
            prob = probs[position] if probs else 0.5
            rows += [(layer, position, f"{token}{layer}", 0, prob), (layer, position, "second", 1, prob / 2)]
    return pd.DataFrame(rows, columns=["layer", "position", "token", "rank", "prob"])


def cells(html):
    return [
        [td.get_text() for td in tr.find_all("td")] for tr in BeautifulSoup(html, "html.parser").tbody.find_all("tr")
    ]


def test_colours_and_markers_are_distinct_and_as_many():
    assert len({c.upper() for c in theme.COLOURS}) == len(theme.COLOURS) == 8
    assert all(re.fullmatch("#[0-9A-Fa-f]{6}", c) for c in [*theme.COLOURS, theme.GREY])
    assert len(set(theme.MARKERS)) == len(theme.MARKERS) == len(theme.COLOURS)
    for i, one in enumerate(theme.COLOURS):
        for other in theme.COLOURS[i + 1 :]:
            assert sum((a - b) ** 2 for a, b in zip(rgb(one), rgb(other), strict=True)) > 60**2, (one, other)


def test_grey_text_reads_on_white():
    assert contrast(rgb(theme.GREY), (255, 255, 255)) >= 4.5


def test_use_sets_matplotlib_and_altair():
    with mpl.rc_context(), alt.theme.enable("default"):
        mpl.rcdefaults()
        theme.use()
        assert mpl.rcParams["axes.prop_cycle"].by_key()["color"] == theme.COLOURS
        assert mpl.rcParams["savefig.facecolor"] == "white"
        assert mpl.rcParams["figure.constrained_layout.use"] is True
        assert mpl.rcParams["axes.spines.top"] is False
        assert alt.theme.active == "semhub"
        chart = alt.Chart(pd.DataFrame({"x": [1]})).mark_point().encode(x="x").to_dict()
        assert chart["config"]["range"]["category"] == theme.COLOURS
        assert chart["config"]["background"] == "white"


def test_importing_the_package_leaves_altair_as_it_was():
    assert "semhub" in alt.theme.names()
    assert alt.theme.active != "semhub"


def test_a_lens_table_shows_the_top_token_of_each_cell_with_the_last_block_on_top():
    html = theme.lens_table(frame(["dog", "cat"]), "What it says").to_html()
    assert cells(html) == [["dog1", "cat1"], ["dog0", "cat0"]]
    assert "second" not in html
    assert BeautifulSoup(html, "html.parser").caption.get_text() == "What it says"


def test_tokens_in_a_lens_table_are_text_and_never_markup():
    nasty = ["<script>alert(1)</script>", "<b>", "a & b", '"q"']
    html = theme.lens_table(frame(nasty), "c").to_html()
    soup = BeautifulSoup(html, "html.parser")
    assert soup.find("script") is None
    assert soup.find("b") is None
    assert cells(html)[0] == [f"{token}1" for token in nasty]


def test_a_lens_table_of_a_model_shows_what_top_tokens_says(llama):
    top = sh.top_tokens(llama, "The dog", k=2, positions="all")
    rows = cells(theme.lens_table(top, "c").to_html())
    best = top[top["rank"] == 0].pivot(index="layer", columns="position", values="token")
    assert rows == [[theme.visible_spaces(token) for token in best.loc[layer]] for layer in range(4, -1, -1)]


def test_a_more_likely_token_is_shaded_darker_and_its_ink_reads():
    probs = [0.0, 0.01, 0.1, 0.5, 1.0]
    backgrounds = [tuple(map(int, re.findall(r"\d+", theme._shade(theme._step(p)))[:3])) for p in probs]
    assert backgrounds[0] == (255, 255, 255)
    assert backgrounds[-1] == rgb(theme.COLOURS[0])
    shades = [luminance(b) for b in backgrounds]
    assert shades == sorted(shades, reverse=True)
    assert len(set(shades)) == len(shades)


@settings(deadline=None, max_examples=200)
@given(prob=st.floats(0, 1))
def test_the_ink_of_a_lens_table_reads_on_every_shade(prob):
    css = theme._shade(theme._step(prob))
    background = tuple(map(int, re.findall(r"\d+", css)[:3]))
    ink = {"white": (255, 255, 255), "black": (0, 0, 0)}[css.split("color: ")[-1]]
    assert contrast(background, ink) >= 4.5, css


def test_the_shades_are_in_the_table():
    html = theme.lens_table(frame(["dog", "cat"], [0.0, 1.0]), "c").to_html()
    assert "background-color: rgb(255, 255, 255)" in html
    assert "background-color: rgb(0, 114, 178)" in html


@pytest.mark.parametrize(
    ("token", "shown"), [(" ", "␣"), ("\n\n", "⏎⏎"), ("\t", "⇥"), (" \n", "␣⏎"), ("dog", "dog"), ("", "")]
)
def test_a_token_of_spaces_is_visible(token, shown):
    assert theme.visible_spaces(token) == shown


@pytest.mark.parametrize(("token", "shown"), [(" dog", "␣dog"), ("\n dog", "⏎␣dog"), ("\tx", "⇥x")])
def test_spaces_before_a_word_are_visible_as_the_docstring_says(token, shown):
    assert theme.visible_spaces(token) == shown


def test_the_columns_of_a_lens_table_can_be_named_and_are_escaped():
    top = pd.DataFrame({"layer": [0, 0], "position": [0, 1], "token": ["a", "b"], "rank": [0, 0], "prob": [0.5, 0.5]})
    page = theme.lens_table(top, "Caption", columns=["<bos>", " dog"]).to_html()
    assert "&lt;bos&gt;" in page
    assert "␣dog" in page
    assert "<bos>" not in page


def test_the_legend_explains_the_signs_that_are_there_and_no_others():
    plain = theme.lens_table(frame(["dog", "cat"]), "c").to_html()
    assert "␣" not in plain
    assert "{signs}" not in plain
    spaced = theme.lens_table(frame([" dog", "a\ufffd"]), "c").to_html()
    assert "␣ is a space, \ufffd is a part of a character." in spaced
    assert "⏎" not in spaced
