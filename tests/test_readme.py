"""The README's example prints what the README says, and its figure is one that a build drew."""

import contextlib
import io
import re

import pytest

import build_book
from semhub_utils.data import words

README = (build_book.ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_prints_what_the_readme_says():
    code = re.search(r"```python\n(.*?)```", README, re.S)
    said = re.search(r"```\n(.*?)```", README[code.end() :], re.S).group(1)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code.group(1), {})
    ours, theirs = printed.getvalue().split(), said.split()
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        # A rank in the hundreds moves by a few with the order in which another processor adds.
        assert one == other or int(one) == pytest.approx(int(other), rel=0.1)
    assert len(code.group(1).splitlines()) <= 10  # eight, an empty line and the imports


def test_every_file_that_the_readme_links_to_is_there():
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert len(targets) > 8
    assert [target for target in targets if not (build_book.ROOT / target).exists()] == []


def test_every_make_target_that_the_readme_names_exists():
    targets = re.findall(r"^([a-z]+):", (build_book.ROOT / "Makefile").read_text(), re.M)
    assert set(re.findall(r"make ([a-z]+)", README)) - {"a"} <= set(targets)


def test_the_data_card_of_the_words_counts_them_right():
    card = (build_book.BOOK / "reference" / "data-cards.md").read_text(encoding="utf-8")
    said = int(re.search(r"([\d,]+) concepts", card).group(1).replace(",", ""))
    assert said == words()["concept"].nunique()
