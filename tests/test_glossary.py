"""The glossary: whole, in order, and linked where a chapter first uses one of its terms."""

import re

import nbformat
import pytest

import build_book
import glossary

PAGE = glossary.PAGE.read_text(encoding="utf-8")
KNOWN = glossary.terms(PAGE)


@pytest.mark.parametrize("chapter", build_book.chapters())
def test_a_chapter_links_each_term_where_it_first_uses_it(chapter):
    cells = nbformat.read(build_book.BOOK / f"{chapter}.ipynb", as_version=4).cells
    texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
    missing = [new for old, new in zip(texts, glossary.linked(texts, KNOWN), strict=True) if old != new]
    assert missing == [], "run `python tools/glossary.py`, and look at what it links"
    addresses = re.findall(r"\]\(([^)\s]*glossary\.md[^)\s]*)\)", "\n".join(texts))
    assert set(addresses) <= set(KNOWN.values()), "a link to a term that the glossary does not have"
    assert len(addresses) >= 10


def test_each_term_is_explained_in_a_sentence_or_two_and_says_where_it_is_taught():
    entries = re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]
    assert len(entries) == len(KNOWN) >= 40
    for entry in entries:
        term, text = entry.split("\n", 1)
        text = re.sub(r"^## .$", "", text, flags=re.MULTILINE).strip()
        [taught] = re.findall(r"Taught in \[[^]]+\]\(\.\./(.+?)\.ipynb(?:#[\w-]+)?\)\.$", text)
        assert taught in build_book.chapters(), term
        assert 20 < len(text.split("Taught in")[0]) < 260, term


def test_the_terms_are_in_order_each_under_its_letter():
    letter, last = "", ""
    for heading in re.findall(r"^##+ .+$", PAGE, re.MULTILINE):
        level, name = heading.split(" ", 1)
        if level == "##":
            assert name > letter
            letter = name
        else:
            assert name[0].upper() == letter
            assert name.lower() > last
            last = name.lower()


def test_only_the_first_use_in_prose_is_linked():
    known = glossary.terms("### hub\n\n### semantic hub hypothesis\n\n### null\n\n### retrieval@1\n")
    cells = [
        "# The hub\n\n`hub` and $hub$ and [a hub](x.md), <b title='hub'>, the semantic hub hypothesis, hubs.",
        "| null |\n|---|\n| **retrieval@1**, gains |\n\nhub, thumb-null-s, nulls",
        "## References\n\n- Hub. Null.",
    ]
    page = "../reference/glossary.md"
    assert glossary.linked(cells, known) == [
        "# The hub\n\n`hub` and $hub$ and [a hub](x.md), <b title='hub'>, the "
        f"[semantic hub hypothesis]({page}#semantic-hub-hypothesis), [hubs]({page}#hub).",
        f"| null |\n|---|\n| **[retrieval@1]({page}#retrieval1)**, gains |\n\nhub, thumb-null-s, [nulls]({page}#null)",
        cells[2],
    ]


def test_linking_twice_changes_nothing():
    once = glossary.linked(["A hub has spokes, and a hub has a null."], KNOWN)
    assert once[0].count("](") == 3
    assert glossary.linked(once, KNOWN) == once
