"""The printed book: one document in reading order, with bookmarks, page numbers and links that lead within."""

import unicodedata

import pytest
from pypdf import PdfReader

import build_book
import print_book

PAGE = """<!DOCTYPE html><meta charset="utf-8"><style>p { break-after: page }</style><body>
<h1>NAME<a class="headerlink" href="#">#</a></h1><p>first of NAME</p><p id="second">second of NAME</p>
<a href="OTHER.html">to the other</a> <a href="OTHER.html#second">to its second</a> <a href="#second">to my second</a>
<a href="https://example.org/">outside</a> <a href="missing.html">nowhere</a>"""


@pytest.fixture(scope="module")
def printed(chromium, tmp_path_factory):
    """A book of two pages, printed; its reader."""
    root = tmp_path_factory.mktemp("book")
    html = root / "_build" / "html"
    html.mkdir(parents=True)
    for name, other in (("one", "two"), ("two", "one")):
        (html / f"{name}.html").write_text(PAGE.replace("NAME", name).replace("OTHER", other))
    (root / "_config.yml").write_text("title: A small book\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_book, "ROOT", root)
        patch.setattr(build_book, "HTML", html)
        patch.setattr(build_book, "pages", lambda: ["one", "two"])
        patch.setattr(print_book, "PDF", root / "_build" / "book.pdf")
        return PdfReader(print_book.print_book())


def test_the_pages_stand_in_reading_order_with_their_numbers(printed):
    # Some fonts print "fi" as one letter.
    text = [unicodedata.normalize("NFKC", page.extract_text()) for page in printed.pages]
    assert len(text) == 7  # the contents, and three sheets each
    assert "first of one" in text[1]
    assert "second of one" in text[2]
    assert "first of two" in text[4]
    assert text[4].split()[-2:] == ["two", "5"]  # the foot: the chapter's title, the number
    assert text[0].split()[-4:] == ["one", "2", "two", "5"]


def test_bookmarks_lead_to_the_chapters(printed):
    found = [(mark.title, printed.get_destination_page_number(mark)) for mark in printed.outline]
    assert found == [("one", 1), ("two", 4)]


def test_links_lead_within_the_book_and_those_that_lead_nowhere_are_gone(printed):
    links = [link.get_object() for link in printed.pages[3]["/Annots"]]
    within = [printed.get_page_number(link["/Dest"][0].get_object()) for link in links if "/Dest" in link]
    outside = [link["/A"]["/URI"] for link in links if "/A" in link]
    assert within == [4, 5, 2]
    assert outside == ["https://example.org/"]
    everywhere = [str(link.get_object()) for page in printed.pages for link in page.get("/Annots", [])]
    assert not any("127.0.0.1" in link for link in everywhere)


def test_without_a_browser_the_way_out_is_named(monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setattr(print_book, "_MAC", "/nowhere/chrome")
    monkeypatch.setattr(build_book, "build", lambda: pytest.fail("nothing is built that cannot be printed"))
    assert print_book.main() == 1
    assert "CHROMIUM=/path/to/chrome" in capsys.readouterr().err


def test_every_page_of_the_book_has_the_title_that_the_contents_give():
    build_book.build()
    titles = [print_book._page_title(page) for page in build_book.pages()]
    assert titles[0] == "The Semantic Hub"
    assert "Reading a model" in titles
    assert len(set(titles)) == len(titles)
