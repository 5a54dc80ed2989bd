"""Links from the chapters to the glossary: each term, where a chapter first uses it.

    python tools/glossary.py    adds the links that are missing, in every chapter

A link is plain Markdown, which reads in Jupyter and on Colab too.
"""

import json
import re
from pathlib import Path

import build_book

PAGE = build_book.BOOK / "reference" / "glossary.md"
_ADDRESS = "../reference/glossary.md"
# Other words under which a text uses a term, besides its plural.
_FORMS = {
    "bootstrap": ["bootstrap interval"],
    "centring": ["centred"],
    "held-out": ["held out"],
    "Holm's correction": ["Holm"],
    "standardising": ["standardised"],
}
# What looks like a term and is another word: verbs, and parts of a block.
_OTHERS = ["gains", "ranks", "attention layer", "feed-forward layer"]
# What is not prose: code, formulas, links, tags, headings, the first row of a table.
_NOT_PROSE = re.compile(
    r"```.*?```|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]+\$|!?\[[^\]\n]*\]\([^)\n]*\)|<[^>\n]*>|^#[^\n]*|^\|[^\n]*(?=\n\|--)",
    re.DOTALL | re.MULTILINE,
)


def terms(page: str) -> dict[str, str]:
    """The address of each term of the glossary, by the term."""
    found = re.findall(r"^### (.+)$", page, re.MULTILINE)
    return {term: f"{_ADDRESS}#{_anchor(term)}" for term in found}


def linked(cells: list[str], known: dict[str, str]) -> list[str]:
    """The Markdown cells of a chapter with a link at the first use of each term that they use."""
    names = {form.lower(): term for term in known for form in [term, f"{term}s", *_FORMS.get(term, [])]}
    names |= dict.fromkeys(_OTHERS, "")
    # The longest first: the hub of "semantic hub hypothesis" is no use of "hub".
    longest = sorted(names, key=len, reverse=True)
    pattern = re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, longest))})(?![\w-])", re.IGNORECASE)
    seen = {""}
    done = []
    for cell in cells:
        if cell.startswith("## References"):
            done.append(cell)
            continue
        seen |= {term for term, address in known.items() if f"]({address})" in cell}
        prose = _NOT_PROSE.sub(lambda other: "\0" * len(other[0]), cell)
        links = []
        for use in pattern.finditer(prose):
            term = names[use[0].lower()]
            if term not in seen:
                seen.add(term)
                links.append((use.start(), use.end(), known[term]))
        for start, end, address in reversed(links):
            cell = f"{cell[:start]}[{cell[start:end]}]({address}){cell[end:]}"
        done.append(cell)
    return done


def _anchor(heading: str) -> str:
    # As Sphinx makes it, and GitHub.
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def main() -> None:
    """Add the links that are missing, touching no other line of a notebook."""
    known = terms(PAGE.read_text(encoding="utf-8"))
    for chapter in build_book.chapters():
        path: Path = build_book.BOOK / f"{chapter}.ipynb"
        notebook = json.loads(path.read_text(encoding="utf-8"))
        cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
        for cell, text in zip(cells, linked(["".join(cell["source"]) for cell in cells], known), strict=True):
            cell["source"] = text.splitlines(keepends=True)
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
