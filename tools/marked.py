"""The part of a page that a tool writes: between `<!-- NAME -->` and `<!-- end of NAME -->`."""

import re


def filled(page: str, name: str, text: str) -> str:
    """The page with the text between the marks of that name.

    Raises:
        ValueError: if the page does not have the two marks once.
    """
    marks = rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)"
    new, count = re.subn(marks, lambda found: f"{found[1]}\n{text}\n\n{found[2]}", page, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"the page has {count} parts between <!-- {name} --> and <!-- end of {name} -->: it needs one")
    return new
