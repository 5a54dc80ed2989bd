"""Formulas become MathML, and the font holds what they are drawn with."""

import re

import pytest
from bs4 import BeautifulSoup
from fontTools.ttLib import TTFont

import equations


def test_a_formula_keeps_its_structure():
    formula = BeautifulSoup(equations.mathml(r"\frac{1}{n} \sum_i S_{ii}", display=True), "html.parser").math
    assert formula["display"] == "block"
    assert [part.get_text() for part in formula.find("mfrac").find_all(True)] == ["1", "n"]
    assert formula.find("msub").get_text() == "Sii"


def test_a_wrong_formula_is_named_with_what_is_wrong():
    with pytest.raises(ValueError, match=r"'\\\\foo x' cannot be shown: Unknown command \"\\foo\"\.$"):
        equations.mathml(r"\foo x")


def test_the_font_holds_italics_roots_and_what_the_text_names(tmp_path):
    page = "<p>W</p>" + equations.mathml(r"\sqrt{h} \le \alpha")
    text = equations.characters([page])
    assert text == set("√h≤α") | {"ℎ", "\U0001d6fc"}
    equations.write_font(tmp_path / "font.woff", text)
    font = TTFont(tmp_path / "font.woff")
    assert set(map(ord, text)) <= set(font.getBestCmap())
    assert ord("W") not in font.getBestCmap()
    # A root that is taller than its letter is put together from pieces.
    grown = font["MATH"].table.MathVariants.VertGlyphConstruction[0].GlyphAssembly
    assert len(grown.PartRecords) >= 2
    assert "Open Font License" in str(font["name"].getDebugName(13))


def test_the_same_formulas_give_the_same_font(tmp_path):
    for name in ("a.woff", "b.woff"):
        equations.write_font(tmp_path / name, set("xyz√"))
    assert (tmp_path / "a.woff").read_bytes() == (tmp_path / "b.woff").read_bytes()


def test_lines_of_one_formula_are_aligned():
    class Node(dict):
        def astext(self):
            return r"a &= b \\ c &= d"

    shown = equations._translate(Node(nowrap=False), display=True)
    assert len(re.findall("<mtr>", shown)) == 2
