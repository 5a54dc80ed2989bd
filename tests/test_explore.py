"""Explorers: what their page carries, what their live controls show, and that the two are the same."""

import importlib
import inspect
import json
import re

import altair as alt
import ipywidgets
import numpy as np
import pandas as pd
import pytest
import torch
from bs4 import BeautifulSoup
from hypothesis import given, settings
from hypothesis import strategies as st

import semhub_utils as sh
from semhub_utils import page
from semhub_utils.theme import Table

NASTY = ["<script>alert(1)</script>", "</script><b>", "a & b", '"q" \'s', "]]>", "<!--", "\\u003c", "法国 ␣"]


def share(language="es", layer=2):
    frame = pd.DataFrame({"block": range(5), "share": [(len(language) + layer * i) / 7 for i in range(5)]})
    return alt.Chart(frame, title=f"{language} at {layer}").mark_line().encode(x="block:O", y="share")


LANGUAGES, LAYERS = {"Spanish": "es", "Swahili": "swa"}, [0, 1, 2, 3]


@pytest.fixture
def explorer(llama):
    return sh.explore(llama, share, "What to see: a slope.", language=LANGUAGES, layer=LAYERS)


def carried(html):
    return json.loads(BeautifulSoup(html, "html.parser").find("script", type="application/json").string)


def test_a_chart_carries_what_the_function_gives_for_every_combination(explorer):
    spec = carried(explorer.page())
    rows = pd.DataFrame(spec["data"]["values"])
    assert len(rows) == len(LANGUAGES) * len(LAYERS) * 5
    for label, value in LANGUAGES.items():
        for layer in LAYERS:
            here = rows[(rows["language"] == label) & (rows["layer"] == layer)]
            np.testing.assert_allclose(here["share"], share(value, layer).data["share"], rtol=1e-3)
            assert spec["usermeta"]["titles"][f"{list(LANGUAGES).index(label)}|{layer}"] == f"{value} at {layer}"


def test_a_chart_is_vega_lite_with_a_bound_parameter_for_each_choice_that_filters_the_rows(explorer):
    spec = carried(explorer.page())
    alt.Chart.from_dict(spec)
    assert [(p["name"], p["value"], p["bind"]["input"]) for p in spec["params"]] == [
        ("language", "Spanish", "select"),
        ("layer", 2, "range"),
    ]
    assert spec["params"][0]["bind"]["options"] == list(LANGUAGES)
    assert [spec["params"][1]["bind"][k] for k in ("min", "max", "step")] == [0, 3, 1]
    assert spec["transform"][0] == {"filter": "datum.language === language && datum.layer === layer"}


def test_the_page_shows_the_default_state_as_text_and_says_what_to_see_and_what_made_it(explorer, llama):
    soup = BeautifulSoup(explorer.page(), "html.parser")
    assert soup.select_one(".semhub-title").get_text() == "es at 2"
    assert soup.select_one(".semhub-values summary span").get_text() == "language Spanish, layer 2"
    cells = [[cell.get_text() for cell in row.find_all(["th", "td"])] for row in soup.select(".semhub-values tr")]
    assert cells == [["block", "share"], *[[str(i), f"{(2 + 2 * i) / 7:.3g}"] for i in range(5)]]
    caption = soup.figcaption.get_text()
    assert caption.startswith("What to see: a slope.")
    assert re.search(
        rf"Computed with {llama.spec.name}, {re.escape(llama.spec.revision)}, \d{{4}}-\d\d-\d\d\.", caption
    )


def test_three_columns_are_shown_as_a_crosstab_in_the_order_of_the_data(llama):
    def heat(layer=0):
        rows = [("zh", "en", 0.25 + layer), ("zh", "ar", 0.5), ("ar", "en", 0.125), ("ar", "ar", 1.0)]
        frame = pd.DataFrame(rows, columns=["from", "to", "share"])
        return alt.Chart(frame).mark_rect().encode(x="to", y="from", color="share")

    soup = BeautifulSoup(sh.explore(llama, heat, "See.", layer=range(3)).page(), "html.parser")
    cells = [[cell.get_text() for cell in row.find_all(["th", "td"])] for row in soup.select(".semhub-values tr")]
    assert cells == [["from / to", "en", "ar"], ["zh", "0.25", "0.5"], ["ar", "0.125", "1"]]


@settings(deadline=None, max_examples=40)
@given(said=st.text(min_size=1) | st.sampled_from(NASTY), label=st.text(min_size=1) | st.sampled_from(NASTY))
def test_what_a_model_says_is_text_and_never_markup(llama, said, label):
    def completion(prompt):
        return f"{prompt} {said}"

    def chart(prompt):
        frame = pd.DataFrame({"token": [said], "p": [0.5]})
        return alt.Chart(frame, title=said).mark_bar().encode(x="p", y="token")

    def table(prompt):
        return pd.DataFrame({"token": [said]}, index=[said])

    for show in (completion, chart, table):
        html = sh.explore(llama, show, said, prompt=[label, "another one"]).page()
        soup = BeautifulSoup(html, "html.parser")
        scripts = soup.find_all("script")
        assert [script.get("type") for script in scripts] == ["application/json"]
        json.loads(scripts[0].string)
        known = (
            "figure p form div details summary span table caption thead tbody tr th td template figcaption small script"
        )
        assert {tag.name for tag in soup.find_all()} <= set(known.split()) | {"style"}


@pytest.mark.parametrize("strengths", [[0, 0.5, 1], [0.0, 0.5, 1.0], np.linspace(0, 1, 4), [True, False], ["a|b", "a"]])
def test_texts_and_tables_are_all_in_the_page_by_the_state_that_selects_them(llama, strengths):
    def completion(prompt="b", strength=strengths[1]):
        return f"{prompt} at {strength}"

    html = sh.explore(llama, completion, "See.", prompt=["a", "b"], strength=strengths).page()
    soup = BeautifulSoup(html, "html.parser")
    found = {one["data-state"]: one.get_text() for one in soup.find_all("template")}
    assert found == {f"{i}|{j}": f"{p} at {s}" for i, p in enumerate("ab") for j, s in enumerate(strengths)}
    assert soup.select_one(".semhub-text").get_text() == f"b at {strengths[1]}"


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0.0, 0.5, 1.0], [0, 0.5, 1]),
        (np.arange(1, 4) / 10, [0.1, 0.2, 0.3]),
        (np.linspace(0, 1, 4), [0, 0.333333, 0.666667, 1]),
        ([0.12345678, 1, 7], [0.123457, 1, 7]),
        ([True, False], ["True", "False"]),
        ([3, 1, 2], [1, 2, 3]),
        (["<b>", "a|b", "a"], ["<b>", "a|b", "a"]),
    ],
    ids=str,
)
def test_the_rows_of_a_chart_carry_the_labels_that_its_parameter_compares_them_with(llama, values, labels):
    def one(value):
        return alt.Chart(pd.DataFrame({"x": [float(len(str(value)))]})).mark_point().encode(x="x")

    made = sh.explore(llama, one, "See.", value=values)
    spec = carried(made.page())
    assert spec["usermeta"]["choices"] == {"value": labels}
    assert [row["value"] for row in spec["data"]["values"]] == labels
    assert spec["params"][0]["value"] in labels
    assert made.verify() == len(labels)


def test_choices_that_read_the_same_are_refused(llama):
    with pytest.raises(ValueError, match=r"two choices of value read 0\.1: give a dict"):
        sh.explore(llama, lambda value: "", "See.", value=[0.1, 0.1 + 1e-12])


def test_a_choice_may_be_anything_such_as_a_vector(llama):
    vectors = {"up": torch.ones(3), "down": -torch.ones(3)}

    def total(vector=vectors["down"]):
        return f"{vector.sum():.0f}"

    made = sh.explore(llama, total, "See.", vector=vectors)
    assert BeautifulSoup(made.page(), "html.parser").select_one(".semhub-text").get_text() == "-3"
    assert made.verify() == 2
    live = made.live()
    live.update()  # ipywidgets 7 waits until it is displayed
    assert live.result.data == "<p>-3</p>"


def test_a_lens_table_has_the_token_in_the_cell_and_its_probability_on_hover(llama):
    top = sh.top_tokens(llama, "The dog", k=1, positions="all")

    def lens(prompt):
        return sh.theme.lens_table(sh.top_tokens(llama, prompt, k=1, positions="all"), prompt)

    soup = BeautifulSoup(sh.explore(llama, lens, "See.", prompt=["The dog", "A"]).page(), "html.parser")
    shown = soup.select_one(".semhub-text")
    best = top.sort_values(["layer", "position"], ascending=[False, True])
    assert [cell.get_text() for cell in shown.select("td[title]")] == list(map(sh.theme.visible_spaces, best["token"]))
    np.testing.assert_allclose([float(cell["title"]) for cell in shown.select("td[title]")], best["prob"], rtol=0.06)
    assert soup.find("style") is not None


def test_the_live_controls_offer_the_same_choices_and_start_at_the_same(explorer):
    controls = explorer.controls()
    assert isinstance(controls["language"], ipywidgets.Dropdown)
    assert isinstance(controls["layer"], ipywidgets.SelectionSlider)
    assert not controls["layer"].continuous_update
    assert controls["language"].options == (("Spanish", 0), ("Swahili", 1))
    assert [label for label, _ in controls["layer"].options] == [str(layer) for layer in LAYERS]
    assert (controls["language"].label, controls["layer"].options[controls["layer"].index][0]) == ("Spanish", "2")


def test_a_control_that_is_moved_calls_the_function_again(llama):
    seen = []

    def show(language, layer):
        seen.append((language, layer))
        return f"{language} {layer}"

    live = sh.explore(llama, show, "See.", language=LANGUAGES, layer=LAYERS).live()
    language, layer = live.children[:2]
    layer.index = 3
    language.index = 1
    # ipywidgets 7, which Colab ships, makes the first call only when the controls are shown.
    assert [call for call in seen if call != ("es", 0)] == [("es", 3), ("swa", 3)]
    assert live.result.data == "<p>swa 3</p>"


def test_verify_compares_every_choice_of_every_control_and_names_the_one_that_differs(llama):
    offset = {"by": 0.0}

    def moving(language, layer):
        frame = pd.DataFrame({"block": [1], "share": [layer + offset["by"] * (layer == 3)]})
        return alt.Chart(frame).mark_point().encode(x="block", y="share")

    made = sh.explore(llama, moving, "See.", language=LANGUAGES, layer=LAYERS)
    made.page()
    assert made.verify() == len(LANGUAGES) + len(LAYERS)
    offset["by"] = 1e-9  # rounding
    assert made.verify() == len(LANGUAGES) + len(LAYERS)
    offset["by"] = 0.01
    with pytest.raises(AssertionError, match="else live than on the page at language Spanish, layer 3"):
        made.verify()


@pytest.mark.parametrize("switch", ["0", None])
def test_the_page_is_shown_where_nobody_turns_and_the_controls_where_somebody_does(explorer, monkeypatch, switch):
    shown = []
    module = importlib.import_module("semhub_utils.explore")  # the name in the package is the function
    monkeypatch.setattr(module, "display", lambda *things: shown.extend(things))
    monkeypatch.setenv("SEMHUB_WIDGETS", switch) if switch else monkeypatch.delenv("SEMHUB_WIDGETS", raising=False)
    explorer._ipython_display_()
    if switch:
        assert 'class="semhub-explorer"' in shown[0].data
    else:
        assert isinstance(shown[0], ipywidgets.interactive)
        assert "What to see: a slope." in shown[1].data


def test_too_many_rows_are_refused_before_they_are_made(llama):
    calls = []

    def big(language, layer):
        calls.append(layer)
        return alt.Chart(pd.DataFrame({"x": range(100)})).mark_point().encode(x="x")

    with pytest.raises(ValueError, match=r"big: 52 states have 5,200 rows, .* 5,000: thin layer, .* 26 choices"):
        sh.explore(llama, big, "See.", language=["a", "b"], layer=range(26)).page()
    assert len(calls) == 1


def test_rows_that_other_states_have_count_too(llama):
    def uneven(layer):
        return alt.Chart(pd.DataFrame({"x": range(1 + 4000 * layer)})).mark_point().encode(x="x")

    with pytest.raises(ValueError, match="uneven: 3 states have 12,003 rows"):
        sh.explore(llama, uneven, "See.", layer=range(3)).page()


def test_too_large_a_page_is_refused_with_what_to_thin(llama):
    def long(prompt):
        return prompt * 3000

    with pytest.raises(ValueError, match=r"long: 2\d\d KB, and a page carries at most 200: thin prompt, .* 8 choices"):
        sh.explore(llama, long, "See.", prompt=[f"{i}2345678" for i in range(8)]).page()


@pytest.mark.parametrize(
    ("choices", "named"),
    [
        ({}, "no choices for any argument"),
        ({"language": [], "layer": [1]}, "no choices for language"),
        ({"language": ["es"], "layer": [7]}, r"default layer=2 is none of \[7\]"),
        ({"language": ["es"], "tone": [7]}, "no argument 'tone': it has language, layer"),
    ],
)
def test_choices_that_cannot_be_are_refused_by_name(llama, choices, named):
    with pytest.raises(ValueError, match=named):
        sh.explore(llama, share, "See.", **choices)


def test_a_name_that_vega_uses_is_refused(llama):
    with pytest.raises(ValueError, match="Vega has its own width: rename"):
        sh.explore(llama, lambda width: "", "See.", width=[1, 2])


def points(frame):
    return alt.Chart(frame).mark_point().encode(x="x:Q")


ONE, TWO = pd.DataFrame({"x": [1.0]}), pd.DataFrame({"x": [2.0]})


@pytest.mark.parametrize(
    ("show", "said"),
    [
        (lambda layer: points(ONE) | points(TWO), "gives a HConcatChart: return a chart of one panel"),
        (lambda layer: points("data.csv"), "no data frame of its own"),
        (lambda layer: points(ONE) + points(TWO), "no data frame of its own|data of its own"),
        (lambda layer: points(ONE).mark_bar() if layer else points(ONE), "more of the chart differs"),
        (lambda layer: points(ONE.assign(layer=5)), "layer is a choice and a column"),
        (lambda layer: points(ONE).encode(row="x:N"), "a chart with row has no one width"),
        (lambda layer: 7, "gives a int: return a chart of one panel, a table or a text"),
    ],
    ids=["panels", "file", "two-frames", "other-mark", "column", "row", "number"],
)
def test_what_no_page_can_show_is_refused_with_the_way_out(llama, show, said):
    with pytest.raises(TypeError, match=said):
        sh.explore(llama, show, "See.", layer=[0, 1]).page()


def test_numbers_at_even_steps_slide_and_others_are_a_list(llama):
    def show(value):
        return str(value)

    def control(values):
        made = sh.explore(llama, show, "See.", value=values)
        return made._params()[0]["bind"]["input"], type(made.controls()["value"])

    slider = ("range", ipywidgets.SelectionSlider)
    assert control([0, 2, 4]) == control(np.array([0.1, 0.2, 0.3])) == control([3, 1, 2]) == slider
    listed = ("select", ipywidgets.Dropdown)
    assert control([0, 1, 4]) == control(["a", "b", "c"]) == control([True, False]) == control([5, 6]) == listed


def test_no_value_is_left_out_or_changed_by_missing_numbers(llama):
    def gaps(layer):
        frame = pd.DataFrame({"x": [1, 2, 3], "y": [0.123456, np.nan, np.inf]})
        return alt.Chart(frame).mark_point().encode(x="x", y="y")

    rows = carried(sh.explore(llama, gaps, "See.", layer=[0, 1]).page())["data"]["values"]
    assert [row["y"] for row in rows] == [0.1235, None, None] * 2
    assert [row["x"] for row in rows] == [1, 2, 3] * 2


def test_a_curve_draws_the_value_the_band_and_the_null():
    frame = pd.DataFrame(
        {"layer": [0, 1], "share": [0.2, 0.6], "low": [0.1, 0.5], "high": [0.3, 0.7], "null": [0.05] * 2}
    )
    spec = sh.theme.curve(frame, "Rises").to_dict()
    band, lines = spec["layer"]
    assert spec["title"] == "Rises"
    assert (band["encoding"]["y"]["field"], band["encoding"]["y2"]["field"]) == ("low", "high")
    assert lines["transform"] == [{"fold": ["share", "null"], "as": ["line", "height"]}]
    assert lines["encoding"]["strokeDash"]["field"] == lines["encoding"]["color"]["field"] == "line"


def test_a_declaration_is_shorter_than_the_same_chart_in_plain_altair(llama):
    def plain():
        frames = []
        for label, value in LANGUAGES.items():
            for layer in LAYERS:
                frames.append(share(value, layer).data.assign(language=label, layer=layer))
        language = alt.param(name="language", value="Spanish", bind=alt.binding_select(options=list(LANGUAGES)))
        layer = alt.param(name="layer", value=2, bind=alt.binding_range(min=0, max=3, step=1))
        chosen = (alt.datum.language == language) & (alt.datum.layer == layer)
        chart = alt.Chart(pd.concat(frames), width="container").mark_line().encode(x="block:O", y="share")
        return chart.add_params(language, layer).transform_filter(chosen)

    def declared():
        return sh.explore(llama, share, "What to see: a slope.", language=LANGUAGES, layer=LAYERS)

    spec, ours = plain().to_dict(), carried(declared().page())
    rows = pd.DataFrame(next(iter(spec["datasets"].values())))
    pd.testing.assert_frame_equal(rows, pd.DataFrame(ours["data"]["values"])[list(rows)], rtol=1e-3)
    assert [p["name"] for p in spec["params"]] == [p["name"] for p in ours["params"]]
    assert spec["mark"] == ours["mark"]
    # The function that draws one state is needed in both; what is left is the sweep and the controls.
    assert len(inspect.getsource(declared).splitlines()) * 3 <= len(inspect.getsource(plain).splitlines())


def test_a_table_without_probabilities_has_no_shades():
    html = page.text(pd.DataFrame({"a": [0.12345, np.nan], "b": ["x", None]}, index=["one", "two"]))
    assert [td.get_text() for td in BeautifulSoup(html, "html.parser").select("tbody td")] == ["0.123", "x", "", ""]
    assert "class=s" not in html
    assert "style" not in Table(pd.DataFrame({"a": ["x"]})).to_html()


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (6.63e-12, "6.63e-12"),
        (1.5e-7, "1.5e-7"),
        (5e-6, "0.000005"),
        (0.00012345, "0.000123"),
        (0.1235, "0.123"),
        (12345.678, "12350"),
        (3.0, "3"),
        (262143, "262143"),
        (np.nan, ""),
        (None, ""),
    ],
)
def test_numbers_are_written_as_a_script_in_the_page_writes_them(value, written):
    html = page.text(pd.DataFrame({"x": [value]}, dtype=object))
    assert BeautifulSoup(html, "html.parser").td.find_next("td").get_text() == written
