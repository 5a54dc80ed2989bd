"""A Sphinx extension: equations as MathML, made when the site is built, and a font for them.

Every current browser draws MathML Core by itself, so a page needs no script, and a screen reader gets the formula and
not a picture. What a browser lacks is a font with mathematical metrics on some systems: the build cuts STIX Two Math
(SIL Open Font License, out of the package `ziamath`) down to the characters that the built pages use.
"""

import html
import re
import unicodedata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from docutils import nodes
from fontTools import subset
from fontTools.ttLib import TTFont
from math_core import LatexError, LatexToMathML
from sphinx.application import Sphinx
from sphinx.util import logging

FONT = "_static/equations.woff"  # book.css names it
_CONVERTER = LatexToMathML()
_LOG = logging.getLogger(__name__)

# A browser shows a single letter as its italic twin, which is another character of the font.
_ITALIC = {unicodedata.normalize("NFKD", chr(code)): chr(code) for code in (*range(0x1D434, 0x1D468), 0x210E)}
_ITALIC |= {unicodedata.normalize("NFKD", chr(code)): chr(code) for code in range(0x1D6E2, 0x1D71C)}


def mathml(latex: str, *, display: bool = False) -> str:
    """The MathML of a formula in LaTeX.

    Raises:
        ValueError: naming the formula and what is wrong in it.
    """
    try:
        return _CONVERTER.convert_with_local_state(latex, displaystyle=display)
    except LatexError as error:
        # The message is drawn for a terminal; its first line says all.
        reason = re.sub(r"\x1b\[[\d;]*m", "", str(error)).strip().splitlines()[0].removeprefix("Error: ")
        raise ValueError(f"the formula {latex!r} cannot be shown: {reason}") from error


def characters(pages: list[str]) -> set[str]:
    """The characters that the formulas of these pages are drawn with."""
    found: set[str] = set()
    for page in pages:
        for formula in re.findall(r"<math\b.*?</math>", page, re.S):
            found |= set(html.unescape(re.sub(r"<[^>]*>", "", formula)))
            found |= {"√"} if re.search("<m(sqrt|root)", formula) else set()  # drawn, but not in the text
    return found | {_ITALIC[char] for char in found if char in _ITALIC}


def write_font(path: Path, text: set[str]) -> None:
    """Write STIX Two Math with these characters, their sizes and their stretched forms, as WOFF."""
    package = find_spec("ziamath")  # found and not imported: only its file is of use here
    if package is None or package.origin is None:
        raise FileNotFoundError("the font of the formulas is in the package 'ziamath': install it (make book does)")
    source = Path(package.origin).parent / "fonts" / "STIXTwoMath-Regular.ttf"
    options = subset.Options(flavor="woff", name_IDs=["*"], layout_features=["ssty", "dtls"], recalc_timestamp=False)
    font = TTFont(source, recalcTimestamp=False)
    cutter = subset.Subsetter(options)
    cutter.populate(text="".join(text))
    cutter.subset(font)
    subset.save_font(font, path, options)


def _translate(node: Any, *, display: bool) -> str:
    latex = node.astext().strip()
    if display and not node.get("nowrap") and r"\\" in latex and r"\begin" not in latex:
        latex = rf"\begin{{aligned}}{latex}\end{{aligned}}"
    try:
        return mathml(latex, display=display)
    except ValueError as error:
        _LOG.warning(str(error), location=node)
        return f"<code>{html.escape(latex)}</code>"


def _keep_marks(_app: Sphinx, doctree: nodes.document, _page: str) -> None:
    # A browser may end a line between a formula and the full stop after it.
    for node in doctree.findall(nodes.math):
        after = node.parent.index(node) + 1
        text = node.parent[after] if after < len(node.parent) else None
        if isinstance(text, nodes.Text) and (mark := re.match("[.,;:!?)’]+", text)):
            node["mark"] = mark.group()
            node.parent[after] = nodes.Text(text[mark.end() :])


def _visit_inline(translator: Any, node: nodes.Element) -> None:
    formula = _translate(node, display=False)
    mark = node.get("mark")
    translator.body.append(f'<span style="white-space: nowrap">{formula}{mark}</span>' if mark else formula)
    raise nodes.SkipNode


def _visit_display(translator: Any, node: nodes.Element) -> None:
    translator.body.append(translator.starttag(node, "div", CLASS="math"))
    if node["number"]:
        translator.body.append(f'<span class="eqno">({node["number"]})</span>')
    translator.body.append(_translate(node, display=True) + "</div>\n")
    raise nodes.SkipNode


def _finish(app: Sphinx, error: Exception | None) -> None:
    # From the pages on disk, not from those of this run: a build writes only the pages that changed.
    if error is None and app.builder.format == "html":
        written = [path.read_text(encoding="utf-8") for path in sorted(Path(app.outdir).rglob("*.html"))]
        if text := characters(written):
            write_font(Path(app.outdir) / FONT, text)


def setup(app: Sphinx) -> dict:
    """Offer the renderer `mathml`; `html_math_renderer` in _config.yml chooses it."""
    app.add_html_math_renderer("mathml", (_visit_inline, None), (_visit_display, None))
    app.connect("doctree-resolved", _keep_marks)
    app.connect("build-finished", _finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
