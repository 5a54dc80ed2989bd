"""The built site in a real browser, with every host but this one out of reach."""

import json
from collections import Counter

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

import build_book
import print_book
from today import of_today

CHAPTERS = build_book.chapters()
# Phone, and the desktop at 200% zoom: half the width at twice the density.
# Ten seconds a page under axe: each is judged in one look a day, every other page in the other.
BOTH = [("light", 1280), ("dark", 360)]
LOOKS = [(path, *look) for n, path in enumerate(build_book.pages()) for look in (BOTH if n % 2 else BOTH[::-1])]
NARROW = {"phone": {"width": 360, "height": 740}, "zoomed": {"width": 640, "height": 450}}


@pytest.fixture(scope="module")
def site():
    """The address of the site, built now if it is not up to date and served on loopback."""
    build_book.build()
    with print_book.served(build_book.HTML) as address:
        yield address.rstrip("/")


@pytest.fixture(scope="module")
def browser(chromium):
    closed = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu", closed])


@pytest.fixture
def tab(browser, site):
    """Opens a page of the site; at the end of the test nothing may have gone wrong or left this machine."""
    contexts, wrong = [], []

    def open_page(path, **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("response", lambda response: None if response.ok else wrong.append(f"{response.status} {response.url}"))
        page.on("request", lambda r: None if r.url.startswith((site, "data:", "blob:")) else wrong.append(r.url))
        page.goto(f"{site}/{path}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def explorers(page):
    """Each explorer of a page, drawn, with what it carries."""
    for figure in page.query_selector_all("figure.semhub-explorer"):
        figure.scroll_into_view_if_needed()
        page.wait_for_function("figure => figure.dataset.drawn === 'yes'", arg=figure)
        yield figure, json.loads(figure.query_selector("script[type='application/json']").text_content())


def states_to_visit(params, choices):
    """The default, and every choice of each control with the others at their defaults: indexes into the choices."""
    default = [choices[param["name"]].index(param["value"]) for param in params]
    yield default
    for place, param in enumerate(params):
        for i in range(len(choices[param["name"]])):
            yield [*default[:place], i, *default[place + 1 :]]


def set_controls(figure, params, state):
    for param, i in zip(params, state, strict=True):
        control = figure.query_selector(f"[name='{param['name']}']")
        if param["bind"]["input"] == "select":
            control.select_option(index=i)
        else:
            turn = "(c, i) => { c.value = i; c.dispatchEvent(new Event('input', { bubbles: true })); }"
            control.evaluate(turn, i)


# What a chart has drawn: the words of each mark for who listens, and where it stands.
MARKS = """figure => [...figure.querySelectorAll("[aria-roledescription='point'], [aria-roledescription='rect mark'],"
  + " [aria-roledescription='bar'], [aria-roledescription='line mark']")].map(mark => {
    const box = mark.getBoundingClientRect();
    return { kind: mark.getAttribute("aria-roledescription"), said: mark.getAttribute("aria-label"),
             left: box.left, right: box.right, middle: box.top + box.height / 2, fill: getComputedStyle(mark).fill };
})"""


def said(mark):
    pairs = [part.split(": ", 1) for part in mark["said"].split("; ")]
    return dict(pairs)


def number(text):
    return float(text.replace("−", "-"))


def expected(spec, params, state):
    choices = spec["usermeta"]["choices"]
    at = {param["name"]: choices[param["name"]][i] for param, i in zip(params, state, strict=True)}
    rows = [row for row in spec["data"]["values"] if all(row[name] == value for name, value in at.items())]
    return [{name: row[name] for name in spec["usermeta"]["columns"]} for row in rows]


def stand_in_proportion(heights, marks):
    """The higher the value, the higher the mark."""
    places = [mark["middle"] for mark in marks]
    slope, offset = np.polyfit(heights, places, 1)
    assert slope < 0
    np.testing.assert_allclose(np.polyval([slope, offset], heights), places, atol=1.0)


def plain(value):
    """A number as it may be written, to three digits, or else the text."""
    try:
        return round(number(str(value)), 3) + 0.0  # no -0.0
    except ValueError:
        return value


def check_cloud(marks, rows):
    """Each row is a point that says all its values, of which the second it says is how high it stands."""
    drawn = [said(mark) for mark in marks]
    in_words, in_data = (Counter(tuple(sorted(map(str, map(plain, one.values())))) for one in x) for x in (drawn, rows))
    assert in_words == in_data
    stand_in_proportion([number(list(one.values())[1]) for one in drawn], marks)


def check_points(marks, rows):
    """Each point of a curve with its null says its row's value, and stands as high; so does one of any other chart."""
    if "null" not in rows[0]:
        return check_cloud(marks, rows)
    x, y = list(rows[0])[:2]
    value = {str(row[x]): row[y] for row in rows if row[y] is not None}
    null = {str(row[x]): row["null"] for row in rows}
    drawn = [said(mark) for mark in marks]
    assert {one[x]: number(one["height"]) for one in drawn if one["line"] == y} == pytest.approx(value, abs=6e-4)
    assert {one[x]: number(one["height"]) for one in drawn if one["line"] == "null"} == pytest.approx(null, abs=6e-4)
    return stand_in_proportion([number(one["height"]) for one in drawn], marks)


def check_bars(marks, rows):
    """Each bar says its row's value and is as long as it is large."""
    label, value = rows[0]
    drawn = {said(mark)[label]: number(said(mark)[value]) for mark in marks}
    assert drawn == pytest.approx({row[label]: row[value] for row in rows}, rel=6e-3)
    lengths = [(mark["right"] - mark["left"]) / number(said(mark)[value]) for mark in marks]
    np.testing.assert_allclose(lengths, lengths[0], rtol=0.05, atol=30)


def check_squares(marks, rows):
    """Each square says its row's value, and a larger value is darker."""
    down, across, value = rows[0]
    drawn = {(said(mark)[down], said(mark)[across]): number(said(mark)[value]) for mark in marks}
    assert drawn == pytest.approx({(row[down], row[across]): row[value] for row in rows}, abs=6e-4)
    values = [number(said(mark)[value]) for mark in marks]
    light = [sum(map(int, mark["fill"][4:-1].split(","))) for mark in marks]
    order = np.argsort(values)
    assert (np.diff(np.array(light)[order])[np.diff(np.array(values)[order]) > 0] <= 0).all()


CHECKS = {"point": check_points, "bar": check_bars, "rect mark": check_squares}


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_control_of_every_explorer_changes_what_is_drawn_to_the_values_in_the_data(tab, chapter):
    page = tab(f"{chapter}.html")
    seen = list(explorers(page))
    assert seen, "a chapter without an explorer"
    for figure, carried in seen:
        params = [param for param in carried["params"] if "bind" in param]
        drawings = set()
        for state in states_to_visit(params, carried["usermeta"]["choices"]):
            set_controls(figure, params, state)
            key = "|".join(map(str, state))
            page.wait_for_function("([figure, key]) => figure.dataset.state === key", arg=[figure, key])
            drawings.add(
                check_chart(figure, carried, params, state, key) if "data" in carried else check_text(figure, key)
            )
        assert len(drawings) > 1


def check_text(figure, key):
    template = figure.evaluate("(f, k) => f.querySelector(`template[data-state='${k}']`).innerHTML", key)
    assert figure.query_selector(".semhub-text").inner_html() == template != ""
    return template


def check_chart(figure, carried, params, state, key):
    rows, marks = expected(carried, params, state), figure.evaluate(MARKS)
    kinds = {mark["kind"] for mark in marks} & CHECKS.keys()
    assert len(kinds) == 1
    for kind in kinds:
        CHECKS[kind]([mark for mark in marks if mark["kind"] == kind], rows)
    assert figure.query_selector(".semhub-title").text_content() == carried["usermeta"]["titles"][key]
    cells = figure.evaluate("f => [...f.querySelectorAll('.semhub-values tbody td')].map(c => c.textContent)")
    numbers = sorted(float(cell) for cell in cells if cell and cell[-1].isdigit())
    numeric = (v for row in rows for v in list(row.values())[1:] if isinstance(plain(v), float))
    shown = sorted(number(str(v)) for v in numeric)
    np.testing.assert_allclose(numbers, shown, rtol=6e-3, atol=1e-9)
    return json.dumps(marks)


def test_the_values_at_the_default_are_written_alike_by_the_build_and_by_the_page(tab):
    for chapter in CHAPTERS:
        page = tab(f"{chapter}.html")
        for figure, carried in explorers(page):
            if "data" not in carried:
                continue
            params = [param for param in carried["params"] if "bind" in param]
            before = figure.query_selector(".semhub-values").text_content()
            away, back = [0] * len(params), next(states_to_visit(params, carried["usermeta"]["choices"]))
            set_controls(figure, params, away)
            set_controls(figure, params, back)
            assert figure.query_selector(".semhub-values").text_content() == before


def test_a_control_is_reached_and_turned_with_the_keyboard_alone(tab):
    page = tab("evidence/languages.html")
    figure, carried = next(iter(explorers(page)))
    figure.evaluate("f => { f.tabIndex = -1; f.focus(); f.removeAttribute('tabindex'); }")  # a reader who came this far
    page.keyboard.press("Tab")
    focused = page.evaluate_handle("document.activeElement").as_element()
    assert focused.evaluate("(e, f) => f.contains(e) && e.type === 'range'", figure)
    assert focused.evaluate("e => getComputedStyle(e).outlineStyle") != "none"
    page.keyboard.press("Home")
    page.wait_for_function("f => f.dataset.state === '0'", arg=figure)
    page.keyboard.press("ArrowRight")
    page.wait_for_function("f => f.dataset.state === '1'", arg=figure)
    assert focused.get_attribute("aria-valuetext") == "1"
    assert figure.query_selector(".semhub-title").text_content() == carried["usermeta"]["titles"]["1"]
    assert "layer 1" in figure.query_selector(".semhub-values summary").text_content()


def test_a_turn_before_the_chart_is_there_counts_and_without_vega_the_page_says_so(browser, site):
    context = browser.new_context()
    page = context.new_page()
    page.route("**/vega.js", lambda route: route.abort())
    page.goto(f"{site}/evidence/languages.html")
    figure = page.query_selector("figure.semhub-explorer")
    figure.scroll_into_view_if_needed()
    page.wait_for_function("f => f.textContent.includes('could not be drawn')", arg=figure)
    carried = json.loads(figure.query_selector("script[type='application/json']").text_content())
    params = [param for param in carried["params"] if "bind" in param]
    set_controls(figure, params, [1] * len(params))
    assert figure.query_selector(".semhub-chart img") is None  # it would contradict the controls
    assert figure.query_selector(".semhub-title").text_content() == carried["usermeta"]["titles"]["1"]
    page.unroute("**/vega.js")
    page.route("**/vega.js", lambda route: (page.wait_for_timeout(300), route.continue_())[1])
    page.reload()
    figure = page.query_selector("figure.semhub-explorer")
    set_controls(figure, params, [2] * len(params))
    figure.scroll_into_view_if_needed()
    page.wait_for_function("f => f.dataset.drawn === 'yes'", arg=figure)
    check_chart(figure, carried, params, [2] * len(params), "2")
    context.close()


def test_without_scripts_there_is_a_picture_with_its_words_and_the_values_as_text(browser, site):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site}/evidence/languages.html")
    figures = page.query_selector_all("figure.semhub-explorer")
    assert len(figures) >= 3
    for figure in figures:
        if figure.query_selector(".semhub-chart"):
            image = figure.query_selector(".semhub-chart img")
            assert "At first:" in image.get_attribute("alt")
            assert page.request.get(f"{site}/evidence/{image.get_attribute('src')}").ok
        assert figure.query_selector_all("tbody td")
    context.close()


@pytest.mark.parametrize("path", build_book.pages())
def test_no_page_reaches_out_or_fails_or_scrolls_sideways(tab, path):
    for options in NARROW.values():
        page = tab(f"{path}.html", viewport=options)
        for _ in explorers(page):
            pass
        page.wait_for_load_state("networkidle")
        assert page.evaluate("document.documentElement.scrollWidth") <= options["width"]


@pytest.mark.parametrize(("path", "scheme", "width"), of_today(LOOKS, 2))
def test_axe_finds_nothing_serious(tab, path, scheme, width):
    page = tab(f"{path}.html", color_scheme=scheme, viewport={"width": width, "height": 800})
    for _ in explorers(page):
        pass
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    # Preloading would make axe fetch, from a wrong address, what styles import.
    found = Axe().run(page, options={"preload": False}).response["violations"]
    serious = [
        (one["id"], [node["html"][:120] for node in one["nodes"][:3]])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_the_search_finds_a_word_of_a_chapter_offline(tab):
    page = tab("search.html?q=bootstrap")
    # The results come in one by one: what is awaited is the chapter itself, not the first line.
    page.wait_for_selector('#search-results a[href*="foundations/measuring-similarity.html"]')
