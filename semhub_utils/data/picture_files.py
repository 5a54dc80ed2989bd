"""A picture file of any kind as a square one of known size and colour mode."""

import gzip
import io
import re
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from semhub_utils.data.files import check_file

SIDE = 224  # what the embedded encoder takes
_MOST_PIXELS = 50_000_000


def open_picture(
    picture: str | Path | Image.Image, size: int | None = SIDE, background: str | None = "white"
) -> Image.Image:
    """A picture as a square RGB one, the whole of it, centred.

    Of an animation the first frame is taken; a palette is resolved, 16-bit grey values are brought to 8 bits, and what
    a camera says of its orientation is obeyed.

    Args:
        picture: a file (SVG, PNG, JPEG, GIF, or what else Pillow reads), or a picture.
        size: the side in pixels; None keeps the picture's own size and shape.
        background: a colour for what is transparent and for the margins; None keeps them transparent, in RGBA.

    Raises:
        FileNotFoundError: if the file is not there.
        ValueError: for a file that is empty, damaged or no picture, or one of more than 50 million pixels.
        ModuleNotFoundError: for an SVG without the package resvg-py.
    """
    if isinstance(picture, Image.Image):
        _check_size(picture, "the picture")
        image = ImageOps.exif_transpose(picture)
    else:
        image = _read(Path(picture), size or SIDE)
    image = _rgba(image)
    if size is not None:
        image = ImageOps.pad(image, (size, size), Image.Resampling.BICUBIC, color=(0, 0, 0, 0))
    if background is None:
        return image
    ground = Image.new("RGBA", image.size, background)
    return Image.alpha_composite(ground, image).convert("RGB")


def _read(path: Path, size: int) -> Image.Image:
    check_file(path, "a picture")
    if path.suffix.lower() in (".svg", ".svgz"):
        return _drawn(path, size)
    try:
        with Image.open(path) as image:
            _check_size(image, str(path))
            image.seek(0)
            return ImageOps.exif_transpose(image)
    except (UnidentifiedImageError, OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as a picture, it may be damaged or cut off: {error}") from error


def _check_size(image: Image.Image, name: str) -> None:
    if image.width * image.height > _MOST_PIXELS:
        raise ValueError(
            f"{name} has {image.width} x {image.height} pixels, more than {_MOST_PIXELS:,}: make it smaller first"
        )


def _drawn(path: Path, size: int) -> Image.Image:
    if find_spec("resvg_py") is None:
        raise ModuleNotFoundError(f"{path.name} is a drawing: to read it run `pip install resvg-py`")
    import resvg_py  # late: most pictures need it not

    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix.lower() == ".svgz" else data).decode("utf-8")
        width, height = _proportions(text)
        # Twice as large as asked for: what is made smaller later has no jagged edges. Only the longer side is given,
        # since from the shorter one of a very long drawing resvg would make one that fills the memory.
        side = (2 * size, None) if width >= height else (None, 2 * size)
        made = resvg_py.svg_to_bytes(svg_string=text, skip_system_fonts=True, width=side[0], height=side[1], dpi=96)
    except (ValueError, OSError, ElementTree.ParseError) as error:
        raise ValueError(f"{path} cannot be read as a drawing (SVG): {error}") from error
    return Image.open(io.BytesIO(bytes(made)))


def _proportions(svg: str) -> tuple[float, float]:
    """Width and height of a drawing in units of its own."""
    root = ElementTree.fromstring(svg)
    sides = [re.match(r"\s*([0-9.]+)\s*(?!%)[a-z]*\s*$", root.get(side, "")) for side in ("width", "height")]
    box = root.get("viewBox", "").replace(",", " ").split()
    width, height = (float(side[1]) for side in sides) if all(sides) else map(float, box[2:4] or (0, 0))  # type: ignore[index]
    if not (width > 0 and height > 0 and 0.001 < width / height < 1000):
        raise ValueError(
            f"it is {width:g} wide and {height:g} high: give one with a size, no side 1000 times the other"
        )
    return width, height


def _rgba(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):  # 16 and 32 bits a pixel, which Pillow would cut off at 255
        values = np.asarray(image, np.float64)
        top = 65535 if image.mode.startswith("I") and values.max(initial=0) > 255 else max(values.max(initial=0), 1)
        image = Image.fromarray((np.clip(values / top, 0, 1) * 255).round().astype(np.uint8))
    return image.convert("RGBA")
