"""The built pages take nothing from another host, weigh little, and know where they are published."""

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from bs4 import BeautifulSoup
from fontTools.ttLib import TTFont

import build_book
import card
import equations
import offline

# Hosts from which pages are known to fetch scripts, styles and fonts, and the ways in which a script fetches.
DELIVERY = re.compile(
    r"(?:cdn\.jsdelivr\.net|unpkg\.com|cdnjs\.cloudflare\.com|esm\.sh|esm\.run|skypack\.dev|jspm\.(?:io|dev)"
    r"|fonts\.googleapis\.com|fonts\.gstatic\.com|ajax\.googleapis\.com|bootstrapcdn\.com|use\.fontawesome\.com)"
)
FETCH = re.compile(
    r"(?:\bimport\s*\(?|\bfrom|\bfetch\s*\(|importScripts\s*\(|\.src\s*=|\.open\s*\(\s*[\"']\w+[\"']\s*,)"
    r"\s*[\"'`](?:https?:)?//[^\"'`]+"
)
LOADING = {"stylesheet", "icon", "preload", "modulepreload", "prefetch", "preconnect", "dns-prefetch", "manifest"}
MEGABYTE = 2**20


def links_in_css(text):
    return re.findall(r"url\(\s*[\"']?([^\"')]+)", text) + re.findall(r"@import\s+[\"']([^\"']+)", text)


def loads(page):
    """Everything that a browser fetches for a parsed page by itself, as the page writes it."""
    found = []
    for tag in page.find_all(True):
        if tag.name == "link" and not LOADING & set(tag.get("rel", [])):
            continue
        if tag.name == "link" or (tag.name in ("use", "image") and tag.find_parent("svg")):
            found += [tag.get("href") or tag.get("xlink:href")]
        if tag.name in ("script", "img", "source", "video", "audio", "track", "iframe", "embed", "input"):
            found += [tag.get("src"), tag.get("poster")]
            found += [part.split()[0] for part in tag.get("srcset", "").split(",") if part.strip()]
        if tag.name == "object":
            found += [tag.get("data")]
        found += links_in_css(tag.get("style", ""))
        if tag.name == "style":
            found += links_in_css(tag.get_text())
    return [one for one in found if one and not one.startswith(("data:", "#"))]


def files_of(path, page):
    """The files that a page loads, and those that their styles load."""
    todo, found = [path.parent / unquote(urlparse(one).path) for one in loads(page)], set()
    while todo:
        file = todo.pop().resolve()
        if file in found:
            continue
        found.add(file)
        if file.suffix == ".css":
            inside = links_in_css(file.read_text(encoding="utf-8"))
            todo += [file.parent / urlparse(one).path for one in inside if not one.startswith(("data:", "#"))]
    return found


@pytest.fixture(scope="module")
def site():
    """Each page of the book's site, parsed, by its path; the page for wrong addresses is looked at apart."""
    root = build_book.build().parent
    paths = [path for path in root.rglob("*.html") if "_static" not in path.parts and path.name != "404.html"]
    return {path: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for path in paths}


def test_the_check_sees_what_a_browser_would_fetch():
    page = """<link rel="canonical" href="//a/0"><link rel="stylesheet" href="//a/1"><script src="//a/2"></script>
    <a href="//a/0"></a><img src="//a/3" srcset="//a/4 2x"><p style="background: url('//a/5')"></p>
    <style>@import "//a/6"; @font-face { src: url(//a/7) }</style><svg><use href="//a/8"/></svg>"""
    assert sorted(loads(BeautifulSoup(page, "html.parser"))) == [f"//a/{n}" for n in range(1, 9)]
    assert FETCH.search('const m = await import("https://a/1.js")')
    assert FETCH.search("script.src = '//a/1.js'")
    assert not FETCH.search('const schema = "https://a/schema.json"')


def test_no_page_loads_anything_from_another_host(site):
    elsewhere = [(path.name, one) for path, page in site.items() for one in loads(page) if urlparse(one).netloc]
    assert elsewhere == []


def test_everything_that_a_page_loads_is_there(site):
    missing = [(path.name, file) for path, page in site.items() for file in files_of(path, page) if not file.is_file()]
    assert missing == []


def test_no_style_and_no_script_that_is_loaded_leads_elsewhere(site):
    loaded = set().union(*(files_of(path, page) for path, page in site.items()))
    for file in loaded | {build_book.HTML / "_static" / "vega.js"}:  # explore.js loads that one
        if file.suffix == ".css":
            outside = [one for one in links_in_css(file.read_text(encoding="utf-8")) if urlparse(one).netloc]
            assert outside == [], file.name
        if file.suffix in (".js", ".mjs"):
            text = file.read_text(encoding="utf-8")
            assert DELIVERY.findall(text) + FETCH.findall(text) == [], file.name


def test_no_script_within_a_page_leads_elsewhere(site):
    for path, page in site.items():
        text = "\n".join(script.get_text() for script in page.find_all("script"))
        assert DELIVERY.findall(text) + FETCH.findall(text) == [], path.name


def test_a_page_weighs_at_most_2_5_megabytes_without_what_all_share(site):
    files = {path: files_of(path, page) for path, page in site.items()}
    shared = set.intersection(*files.values())
    weights = {path: path.stat().st_size + sum(f.stat().st_size for f in files[path] - shared) for path in site}
    assert {path.name: weight for path, weight in weights.items() if weight > 2.5 * MEGABYTE} == {}
    assert max(weights.values()) > 0.2 * MEGABYTE  # figures count


def prose(page):
    """The text of a page but code and tables: a lens may well read a token of LaTeX."""
    aside = ["pre", "code", "script", "template", "table"]
    return " ".join(text for text in page.body.find_all(string=True) if not text.find_parent(aside))


def test_every_formula_of_the_book_is_set_and_its_font_can_draw_it(site):
    text = [str(formula) for page in site.values() for formula in page.find_all("math")]
    assert len(text) > 30
    assert not any("\\" in formula for formula in text)
    leftover = [path.name for path, page in site.items() if re.search(r"\\\(|\\\[|\\frac", prose(page))]
    assert leftover == []
    font = TTFont(build_book.HTML / equations.FONT)
    # Signs of structure, such as "function of", have no picture.
    drawn = {char for char in equations.characters(text) if not char.isspace() and not 0x2061 <= ord(char) <= 0x2064}
    assert drawn - {chr(code) for code in font.getBestCmap()} == set()
    assert font["MATH"].table.MathVariants.VertGlyphCount > 0  # brackets and roots grow
    assert (build_book.HTML / equations.FONT).stat().st_size < 100_000


@pytest.fixture(scope="module")
def build_small(tmp_path_factory):
    """Builds a site of two small pages with the book's own configuration; returns its folder and what was said."""

    def build(text, address):
        # No address: neither one that is given nor one that _config.yml has.
        given = {"SEMHUB_SITE": address, "SEMHUB_REPOSITORY": "https://github.com/OWNER/semantic-hub"}
        folder = tmp_path_factory.mktemp("small")
        source = folder / "_build" / "site"
        (source / "part").mkdir(parents=True)
        (source / "_config.yml").write_text((build_book.ROOT / "_config.yml").read_text(encoding="utf-8"))
        (source / "_toc.yml").write_text("format: jb-book\nroot: index\nchapters:\n  - file: part/one\n")
        (source / "index.md").write_text("# Index\n\nThe first page of a small book.\n")
        (source / "part" / "one.md").write_text(text)
        static = build_book.BOOK / "_static"
        (source / "_static").mkdir()
        for path in (static / "book.css", static / "hub.svg"):
            (source / "_static" / path.name).write_bytes(path.read_bytes())
        (source / offline.CARD).write_bytes(card.draw())
        command = [Path(sys.executable).with_name("jupyter-book"), "build", str(source), "--path-output", str(folder)]
        done = subprocess.run([*command, "-W", "-q"], env=offline.environment() | given, capture_output=True, text=True)
        return folder / "_build" / "html", done

    return build


@pytest.fixture(scope="module")
def published(build_small):
    html, done = build_small("# One\n\nA page *about* `one` thing.\n\n$$\\sqrt{\\frac{a}{b}}$$\n", "https://a.org/book")
    assert done.returncode == 0, done.stderr
    return html


def parsed(path):
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def test_a_published_page_names_itself_and_its_card_in_full(published):
    page = parsed(published / "part" / "one.html")
    tags = {tag.get("property") or tag.get("name"): tag["content"] for tag in page.find_all("meta", content=True)}
    assert page.find("link", rel="canonical")["href"] == "https://a.org/book/part/one.html"
    assert tags["og:url"] == "https://a.org/book/part/one.html"
    assert tags["og:title"] == "One"
    assert tags["og:site_name"] == "The Semantic Hub"
    assert tags["og:description"].startswith("A page about one thing.")
    assert tags["description"] == tags["og:description"]
    assert tags["og:image"] == f"https://a.org/book/{offline.CARD}"
    assert tags["twitter:card"] == "summary_large_image"
    assert (published / offline.CARD).is_file()


def test_the_page_for_wrong_addresses_works_at_any_depth_under_the_base_path(published):
    page = parsed(published / "404.html")
    addresses = loads(page) + [link["href"] for link in page.find_all("a", href=True)]
    inside = [urlparse(one).path for one in addresses if not urlparse(one).netloc and not one.startswith("#")]
    assert len(inside) > 15
    for path in inside:
        assert path.startswith("/book/"), path
        assert (published / path.removeprefix("/book/")).is_file(), path
    assert "/book/part/one.html" in inside


def test_without_an_address_no_tag_names_one(build_small):
    html, done = build_small("# One\n\nA page.\n", "")
    assert done.returncode == 0, done.stderr
    page = parsed(html / "part" / "one.html")
    assert page.find("link", rel="canonical") is None
    assert not page.find_all("meta", property=["og:url", "og:image"])
    assert page.find("meta", property="og:title")["content"] == "One"


def test_a_formula_that_cannot_be_set_stops_the_build_and_is_named(build_small):
    _, done = build_small("# One\n\nA page, $\\notacommand{x}$.\n", "")
    assert done.returncode != 0
    assert "one.md" in done.stderr
    assert r"'\\notacommand{x}' cannot be shown: Unknown command" in done.stderr


def test_thebe_is_gone_from_the_page_and_from_the_site(published):
    text = (published / "part" / "one.html").read_text(encoding="utf-8")
    assert "thebe" not in text.lower()
    assert [path.name for path in published.rglob("*thebe*")] == []


def test_the_card_has_the_size_that_other_sites_expect():
    image = card.draw()
    width, height = (int.from_bytes(image[start : start + 4], "big") for start in (16, 20))
    assert (width, height) == (1200, 630)
    assert card.draw() == image
