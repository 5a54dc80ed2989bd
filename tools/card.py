"""The picture that other sites show beside a link to the book: 1200 by 630 pixels, drawn when the site is built."""

import io
import math

from matplotlib.figure import Figure

BLUE, INK, PAPER = "#1f5fa8", "#1c2733", "#ffffff"
_SPOKES = ("cat", "gato", "кот", "γάτα", "kedi", "chat", "kucing")


def draw() -> bytes:
    """The card as a PNG: the title, what the book is, and words of one meaning around a hub."""
    figure = Figure(figsize=(12, 6.3), dpi=100, facecolor=PAPER)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 1200), ylim=(0, 630))
    axes.axis("off")
    axes.text(60, 420, "The Semantic Hub", size=42, weight="bold", color=INK)
    about = "Where languages meet in a language model:\nsee it, measure it, break it, cause it."
    axes.text(60, 285, about, size=18, color=INK)
    axes.text(60, 190, "A book that runs, on your own machine", size=16, color=BLUE)
    x, y, radius = 930, 305, 195
    for index, word in enumerate(_SPOKES):
        angle = math.pi / 2 - index * math.tau / len(_SPOKES)
        end = x + radius * math.cos(angle), y + radius * math.sin(angle)
        axes.plot((x, end[0]), (y, end[1]), color=BLUE, linewidth=4, zorder=1)
        axes.scatter(*end, s=6200, color=PAPER, edgecolor=BLUE, linewidth=3, zorder=2)
        axes.text(*end, word, size=17, ha="center", va="center", color=INK, zorder=3)
    axes.scatter(x, y, s=9000, color=BLUE, zorder=2)
    axes.text(x, y, "hub", size=22, weight="bold", ha="center", va="center", color=PAPER, zorder=3)
    image = io.BytesIO()
    figure.savefig(image, format="png", metadata={"Software": None})
    return image.getvalue()
