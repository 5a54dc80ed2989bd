"""Every work that the book cites is in the .bib file, is cited as it stands there, and has a sound link."""

import re
from urllib.parse import urlparse

import pytest

import bibliography
import build_book

BIB = build_book.BOOK / "reference" / "references.bib"
WORKS = bibliography.works(BIB)
SOURCES = build_book.sources()


def listed(chapter):
    """The lines of a chapter's References."""
    return [line[2:] for line in SOURCES[chapter].split("## References\n")[1].splitlines() if line.startswith("- ")]


@pytest.mark.parametrize("chapter", build_book.chapters())
def test_a_chapter_cites_each_work_as_the_bib_file_has_it(chapter):
    known = {bibliography.reference(work) for work in WORKS.values()}
    unknown = [line for line in listed(chapter) if line not in known]
    assert unknown == [], f"not a line of tools/bibliography.py's reference(): {unknown}; add the work to {BIB.name}"
    assert len(set(listed(chapter))) == len(listed(chapter)) > 0


@pytest.mark.parametrize("chapter", build_book.chapters())
def test_the_references_are_the_works_that_the_text_names(chapter):
    text = re.sub(r"\]\([^)]*\)", "]", SOURCES[chapter].split("## References\n")[0])
    named = {
        bibliography.reference(work)
        for work in WORKS.values()
        for name in [work.persons["author"][0].last_names[-1].strip("{}")]
        # "Wu et al. (2024)", "Patterson, Nestor and Rogers (2007)", "(nostalgebraist 2020)"
        if re.search(rf"\b{name}\b[^()\n]{{0,40}}[ (]{work.fields['year']}\b", text)
    }
    assert named == set(listed(chapter))


@pytest.mark.parametrize("key", WORKS)
def test_every_work_is_cited_by_a_page(key):
    assert any(bibliography.cites(text, WORKS[key]) for text in SOURCES.values())


@pytest.mark.parametrize("key", WORKS)
def test_a_work_has_a_link_and_its_identifiers_are_well_formed(key):
    fields = WORKS[key].fields
    assert bibliography.links(WORKS[key])
    assert all(urlparse(link).scheme == "https" for link in bibliography.links(WORKS[key]).values())
    if "doi" in fields:
        assert re.fullmatch(r"10\.\d{4,9}/[\w.()/:-]+", fields["doi"])
    if "eprint" in fields:
        assert re.fullmatch(r"\d{4}\.\d{5}|\d{4}\.\d{4}", fields["eprint"])
        assert "doi" in fields
    if fields.get("doi", "").startswith("10.48550/"):
        assert fields["doi"] == f"10.48550/arXiv.{fields['eprint']}"
    assert key.startswith(re.sub(r"\W", "", WORKS[key].persons["author"][0].last_names[-1].split()[0]).lower()[:4])
    assert key.endswith(fields["year"]) or key == "wu2024"


def test_all_addresses_of_papers_in_the_pages_are_in_the_bib_file():
    known = {link for work in WORKS.values() for link in bibliography.links(work).values()}
    pattern = re.compile(r"\((https?://(?:arxiv\.org|(?:dx\.)?doi\.org)/[^)\s]+)\)")
    unknown = {(page, link) for page, text in SOURCES.items() for link in pattern.findall(text) if link not in known}
    assert unknown == set()


def test_a_reference_is_written_out():
    bibliography_line = bibliography.reference(WORKS["patterson2007"])
    assert bibliography_line == (
        "K. Patterson, P. J. Nestor and T. T. Rogers (2007). Where do you know what you know? The representation of "
        "semantic knowledge in the human brain. *Nature Reviews Neuroscience* 8, 976-987. "
        "[doi 10.1038/nrn2277](https://doi.org/10.1038/nrn2277)."
    )
    assert bibliography.reference(WORKS["vaswani2017"]).startswith("A. Vaswani et al. (2017). Attention is all")


def test_the_page_has_every_work_with_its_doi_and_the_pages_that_cite_it():
    page = bibliography.page(BIB, SOURCES, build_book.titles(SOURCES))
    for work in WORKS.values():
        assert f"- {bibliography.reference(work)}" in page
        assert all(f"]({link})" in page for link in bibliography.links(work).values())
    [holm] = [block for block in page.split("\n\n") if "S. Holm" in block]
    assert holm.endswith("Cited in [Measuring similarity](../foundations/measuring-similarity).")
