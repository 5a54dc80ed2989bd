"""Take the README's figure out of the executed first chapter, so that it is the one that a build drew.

    python tools/readme_figure.py
"""

import base64

import nbformat
from build_book import BOOK, execute

FIGURE = BOOK / "_static" / "words-meet.png"


def main() -> None:
    """Write the output of the cell tagged `readme-figure`."""
    notebook = nbformat.read(execute("foundations/the-hypothesis"), as_version=4)
    cell = next(cell for cell in notebook.cells if "readme-figure" in cell.metadata.get("tags", []))
    image = next(output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {}))
    FIGURE.write_bytes(base64.b64decode(image))
    print(f"wrote {FIGURE}")


if __name__ == "__main__":
    main()
