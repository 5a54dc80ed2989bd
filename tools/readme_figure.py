"""Bring the README's figure up to date: the one that the first chapter drew in the last build.

python tools/readme_figure.py
"""

from build_book import FIGURE, execute, figure


def main() -> None:
    """Write the figure where the README and the first page look for it."""
    execute("foundations/the-hypothesis")
    FIGURE.write_bytes(figure())
    print(f"wrote {FIGURE.name}")


if __name__ == "__main__":
    main()
