"""The built site: every page is there, whole, and leads where it says."""

from urllib.parse import unquote, urldefrag, urlparse

import pytest
from bs4 import BeautifulSoup

import build_book


@pytest.fixture(scope="module")
def site():
    """Each page of the site as a parsed document, by its path; built now if it is not up to date."""
    for chapter in build_book.chapters():
        build_book.execute(chapter)
    root = build_book.build_site().parent
    return {path: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for path in root.rglob("*.html")}


def test_every_page_of_the_table_of_contents_is_built(site):
    missing = [page for page in build_book.pages() if build_book.HTML / f"{page}.html" not in site]
    assert missing == []


def test_no_page_holds_a_traceback_or_a_widget_error(site):
    signs = (
        "Traceback (most recent call last)",
        "Error displaying widget",
        "Loading widget",
        "application/vnd.jupyter",
    )
    found = [(path.name, sign) for path, page in site.items() for sign in signs if sign in page.get_text()]
    assert found == []


def test_no_machine_path_is_in_a_page(site):
    root = str(build_book.ROOT)
    assert [path.name for path in site if root in path.read_text(encoding="utf-8")] == []


def test_every_image_has_alt_text_and_is_there(site):
    for path, page in site.items():
        for image in page.find_all("img"):
            assert image.get("alt", "").strip(), f"{path.name}: {image.get('src')}"
            source = image["src"]
            if not source.startswith("data:"):
                assert (path.parent / unquote(source)).is_file(), f"{path.name}: {source}"


def test_every_internal_link_lands(site):
    broken = []
    for path, page in site.items():
        if path.name == "404.html":  # its links are from the root of the host: see test_offline.py
            continue
        for link in page.find_all("a", href=True):
            target, anchor = urldefrag(link["href"])
            if urlparse(target).scheme or target.startswith("//"):
                continue
            landing = (path.parent / unquote(target)).resolve() if target else path
            if landing.is_dir():
                landing /= "index.html"
            if not landing.is_file() or (anchor and landing in site and not site[landing].find(id=unquote(anchor))):
                broken.append(f"{path.name} -> {link['href']}")
    assert broken == []


def test_what_papermill_adds_is_not_shown(site):
    text = "".join(page.get_text() for page in site.values())
    assert "injected-parameters" not in text
    assert "Parameters\n" not in text


def test_a_chapter_shows_its_figures_and_its_claims(site):
    for chapter in build_book.chapters():
        page = site[build_book.HTML / f"{chapter}.html"]
        assert page.select("article .cell_output img"), chapter
        assert "95% interval" in page.get_text(), chapter


def test_building_again_touches_nothing(site):
    pages = [build_book.HTML / f"{page}.html" for page in build_book.pages()]
    before = {page: page.stat().st_mtime_ns for page in pages}
    build_book.build_site()
    assert {page: page.stat().st_mtime_ns for page in pages} == before
