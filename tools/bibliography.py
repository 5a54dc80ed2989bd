"""The bibliography page, and the form of a reference in a chapter, both out of `references.bib`."""

from pathlib import Path
from urllib.parse import urlparse

from pybtex.database import Entry, Person, parse_file

_INTRODUCTION = """\
# Bibliography

Every work that the book cites, with the pages that cite it. The same list for a reference manager: \
[references.bib](references.bib).
"""
# A DOI that leads to arXiv says nothing that the arXiv number does not: only the bibliography shows it.
_OF_ARXIV = "doi 10.48550/"


def works(bib: Path) -> dict[str, Entry]:
    """The entries of a .bib file by their keys."""
    return dict(parse_file(str(bib), bib_format="bibtex").entries)


def reference(work: Entry) -> str:
    """One work as a line of Markdown, as it stands in the References of a chapter.

    It ends in links: to arXiv if the work is there, to the publisher by its DOI, or else to its address.
    """
    fields = work.fields
    title = f"*{fields['title']}*" if work.type == "book" else fields["title"]
    venue = _venue(work)
    parts = [f"{_authors(work.persons['author'])} ({fields['year']})", title, *([venue] if venue else [])]
    # A title may end in a question mark.
    text = " ".join(part if part.endswith("?") else f"{part}." for part in parts)
    shown = [f"[{name}]({address})" for name, address in links(work).items() if not name.startswith(_OF_ARXIV)]
    return f"{text} {', '.join(shown)}."


def links(work: Entry) -> dict[str, str]:
    """The addresses of a work, by what to call them."""
    found = {}
    if "eprint" in work.fields:
        found[f"arXiv {work.fields['eprint']}"] = f"https://arxiv.org/abs/{work.fields['eprint']}"
    if "doi" in work.fields:
        found[f"doi {work.fields['doi']}"] = f"https://doi.org/{work.fields['doi']}"
    if "url" in work.fields:
        found[urlparse(work.fields["url"]).netloc.removeprefix("www.")] = work.fields["url"]
    return found


def cites(markdown: str, work: Entry) -> bool:
    """Whether a page links to a work."""
    return any(f"]({address})" in markdown for address in links(work).values())


def page(bib: Path, sources: dict[str, str], titles: dict[str, str]) -> str:
    """The page as Markdown; `sources` and `titles` have the other pages, by names such as "reference/glossary"."""
    lines = [_INTRODUCTION]
    for work in works(bib).values():
        extra = [f"[{name}]({link})" for name, link in links(work).items() if name.startswith(_OF_ARXIV)]
        where = [f"[{titles[name]}](../{name})" for name, text in sources.items() if cites(text, work)]
        lines += [f"- {reference(work)}", *(f"  {link}." for link in extra), f"  Cited in {', '.join(where)}.", ""]
    return "\n".join(lines)


def _authors(persons: list[Person]) -> str:
    names = [str(" ".join([*p.first_names, *p.middle_names, *p.prelast_names, *p.last_names])) for p in persons]
    names = [name.strip("{}") for name in names]
    if names[-1] == "others":
        return f"{', '.join(names[:-1])} et al."
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _venue(work: Entry) -> str:
    fields = work.fields
    pages = fields.get("pages", "").replace("--", "-")
    if "journal" in fields:
        journal = f"*{fields['journal']}*" + (f" {fields['volume']}" if "volume" in fields else "")
        return ", ".join(filter(None, [journal, pages]))
    place = next((fields[kind] for kind in ("booktitle", "publisher", "howpublished") if kind in fields), "")
    return ", ".join(filter(None, [place, pages]))
