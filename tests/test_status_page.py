"""The status page says what the results files say."""

import pytest
from bs4 import BeautifulSoup
from markdown_it import MarkdownIt

import build_book
import status_page
from semhub_utils import results

COST = {
    "model": "gemma | 3",
    "seconds": 72.8,
    "peak_mb": 2772,
    "date": "2026-01-31T23:59:58Z",
    "machine": "2 CPU cores, Some CPU",
    "versions": {"Python": "3.11.9", "torch": "2.13.0"},
}
ROW = {"name": "a", "statement": "A beats |B|", "value": 0.251, "low": 0.1, "high": 0.4, "n": 9, "null": None}


@pytest.fixture
def tables(monkeypatch):
    """The page's tables, each a list of rows of text, the header first."""
    claim = results.Claim("a", "part/one", "A beats |B|", "m", "r", "open", above=0.0)
    monkeypatch.setattr(results, "claims", lambda _: {"a": claim})
    monkeypatch.setattr(results, "read", lambda _: [ROW | COST | {"held": True}])
    page = status_page.status({"part/one": "One", "part/two": "Two"})
    html = BeautifulSoup(MarkdownIt("commonmark").enable("table").render(page), "html.parser")
    return [[[c.get_text() for c in row.find_all(["th", "td"])] for row in t.find_all("tr")] for t in html("table")]


def test_the_first_table_says_what_each_chapter_cost_and_where_it_ran(tables):
    assert tables[0][0] == ["chapter", "model", "time", "peak memory", "run on (UTC)", "machine", "versions"]
    one = ["gemma | 3", "73 s", "2.7 GB", "2026-01-31 23:59", "2 CPU cores, Some CPU", "Python 3.11.9, torch 2.13.0"]
    assert tables[0][1:] == [["One", *one], ["Two", *one]]


def test_each_claim_has_its_effect_its_control_what_was_expected_and_what_came(tables):
    assert len(tables) == 3
    assert tables[1][0] == ["claim", "effect", "95% interval", "n", "control", "expected", "held"]
    assert tables[1][1:] == [["A beats |B|", "0.25", "0.10 to 0.40", "9", "none", "open", "yes"]]


def test_pages_have_the_titles_that_they_start_with():
    titles = build_book.titles(build_book.sources())
    assert set(build_book.chapters()) < set(titles) < set(build_book.pages())
    assert titles["evidence/languages"] == "Languages"
    assert titles["reference/glossary"] == "Glossary"
