"""What the projectors are trained on: pictures with their names, spoken words with the words; features are kept."""

import hashlib
import inspect
import re
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import wordfreq
from PIL import Image, ImageEnhance
from torch import Tensor
from tqdm import tqdm

from semhub_utils import cache, sound_encoder, stitched
from semhub_utils.data import sounds
from semhub_utils.data.images import pictures, splits
from semhub_utils.data.picture_files import SIDE, open_picture
from semhub_utils.data.words import words

LANGUAGES = ("en", "es", "fr", "de")
FREQUENT = 3000  # words a language beside the names of the concepts


def training_pictures() -> pd.DataFrame:
    """All pictures to train on, out of every source that is installed but the photographs."""
    try:
        frame = pictures(["openmoji", "stamps"])
    except FileNotFoundError as error:
        print(f"Without the stamps of Tux Paint: {error}")
        frame = pictures(["openmoji"])
    return frame[frame["split"] == "train"].reset_index(drop=True)


def training_words() -> pd.DataFrame:
    """The words to train on: names of concepts, and frequent words, in four languages.

    Returns:
        A frame with the columns `concept` (the word itself for a frequent one), `language`, `word` and `source`; its
        index has gaps where a name was left out. No word is the name of a concept that was held out or holds it, in any
        of the languages, or its plural, and no frequent word is another form of one.
    """
    names = words(LANGUAGES)
    split = np.array(splits(names["concept"]))
    held = beginnings(names["word"][split != "train"])
    frames = [names[split == "train"].assign(source="emoji")]
    for language in LANGUAGES:
        known = set(names["word"][names["language"] == language].str.lower())
        listed = wordfreq.top_n_list(language, 10 * FREQUENT)
        kept = [word for word in listed if len(word) > 2 and word.isalpha() and word not in known]
        kept = [word for word in kept if not is_form(word, held)][:FREQUENT]
        frames.append(pd.DataFrame({"concept": kept, "language": language, "word": kept, "source": "frequent"}))
    frame = pd.concat(frames, ignore_index=True)
    # The same letters may be another word in another language: "pie", a foot in Spanish, would teach the English one.
    single = names["word"][np.isin(split, ["validation", "test"])].str.lower()
    judged = {word + ending for word in single for ending in ("", "s", "es", "n", "en")}
    clean = [not judged & {word.lower(), *re.findall(r"\w+", word.lower())} for word in frame["word"]]
    return frame[clean]


def beginnings(names: Iterable[str]) -> dict[str, list[int]]:
    """Names by how they begin, all but the last letter and no less than three, with their lengths."""
    found: dict[str, list[int]] = {}
    for name in names:
        found.setdefault(name.lower()[: max(3, len(name) - 1)], []).append(len(name))
    return found


def is_form(word: str, held: dict[str, list[int]]) -> bool:
    """Whether a word may be another form of a name: the same beginning, and nearly as long."""
    return any(abs(len(word) - length) <= 2 for cut in range(len(word)) for length in held.get(word[: cut + 1], ()))


def changed(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A picture with transparency, turned, mirrored, moved, larger or smaller, in other light, on another ground."""
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = image.rotate(rng.uniform(-20, 20), Image.Resampling.BICUBIC)
    side = int(SIDE * rng.uniform(0.6, 1.15))
    image = image.resize((side, side), Image.Resampling.BICUBIC)
    ground = Image.new("RGBA", (SIDE, SIDE), tuple(int(v) for v in rng.integers(120, 256, 3)))
    free = SIDE - side
    x, y = (int(rng.uniform(min(0, free), max(0, free))) for _ in range(2))
    ground.paste(image, (x, y), image)
    made = ground.convert("RGB")
    for kind in (ImageEnhance.Brightness, ImageEnhance.Color, ImageEnhance.Contrast):
        made = kind(made).enhance(rng.uniform(0.7, 1.3))
    return made


def voiced(word: str, language: str, rng: np.random.Generator) -> np.ndarray:
    """A word in one of the voices that are not held out, at some speed and pitch."""
    voice = rng.choice([one for one in sounds.VOICES if one != sounds.HELD_OUT])
    return sounds.speak(word, language, str(voice), int(rng.integers(110, 200)), int(rng.integers(25, 75)))


def picture_features(frame: pd.DataFrame, copies: int) -> Tensor:
    """The encoder's features of every picture and its changed copies: (pictures, copies, 16, 1280), float16, kept."""
    named = [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in frame["file"]]
    key = cache.key([named, copies, stitched.SHA256, stitched.GRID, inspect.getsource(changed)])

    def make(encoder: stitched.PictureEncoder, row: int) -> Tensor:
        plain = open_picture(frame["file"][row], SIDE, background=None)
        rng = np.random.default_rng([row, 1])
        return encoder([open_picture(plain)] + [changed(plain, rng) for _ in range(copies - 1)])

    return _kept(key, len(frame), stitched.PictureEncoder, make)


def sound_features(frame: pd.DataFrame, copies: int) -> Tensor:
    """The encoder's features of every word in some voices: (words, copies, 8, 1024), float16, kept."""
    said = list(zip(frame["word"], frame["language"], frame.index.tolist(), strict=True))
    code = [inspect.getsource(one) for one in (voiced, sounds, sound_encoder)]
    key = cache.key([said, copies, sound_encoder.SHA256, code])

    def make(encoder: sound_encoder.SoundEncoder, row: int) -> Tensor:
        word, language, number = said[row]
        rng = np.random.default_rng([number, 2])
        return encoder([voiced(word, language, rng) for _ in range(copies)])

    return _kept(key, len(frame), sound_encoder.SoundEncoder, make)


def _kept(key: str, count: int, encoder: Callable, make: Callable[..., Tensor]) -> Tensor:
    path = cache.root() / "projectors" / f"features-{key}.npy"
    if not path.exists():
        net = encoder()
        held = BytesIO()
        np.save(held, np.stack([make(net, row).half().numpy() for row in tqdm(range(count), desc="features")]))
        cache.write_bytes(path, held.getvalue())
    return torch.from_numpy(np.load(path))
