"""One concept, its name in fourteen languages, and its emoji: the words of the Python package `emoji`.

The names are Unicode CLDR's, as the package ships them: nothing is copied into this repository. The package has
dropped the accent from a few letters, such as Russian й (read as и).
"""

import re
import unicodedata
from collections.abc import Sequence

import emoji
import pandas as pd

LANGUAGES = ("ar", "de", "en", "es", "fa", "fr", "id", "it", "ja", "ko", "pt", "ru", "tr", "zh")

_SKIN = range(0x1F3FB, 0x1F400)
_CLOCK_FACES = range(0x1F550, 0x1F568)
_LETTERS_OF_FLAGS = range(0x1F1E6, 0x1F200)
_BLACK_FLAG, _WHITE_FLAG, _KEYCAP, _JOINER = 0x1F3F4, 0x1F3F3, 0x20E3, 0x200D
# A joined emoji that holds one of these is a variant of another: the same act by a man, a woman, a family, or facing
# right; or it is a flag.
_VARIANTS = {0x1F468, 0x1F469, 0x1F9D1, 0x2640, 0x2642, 0x27A1, _BLACK_FLAG, _WHITE_FLAG}


def words(languages: Sequence[str] = (*LANGUAGES, "emoji")) -> pd.DataFrame:
    """Concepts with a name in every language and as an emoji character.

    Flags, keycaps, clock faces, skin tones and joined variants of people are left out; underscores become spaces and
    what stands in brackets is dropped. A concept whose name is another concept's name in any language goes too, so
    that in each column every name stands for one concept.

    Args:
        languages: two-letter codes out of `LANGUAGES`, and "emoji" for the character itself.

    Returns:
        A tidy frame with the columns `concept` (its English name), `language` and `word`: at least 1,200 concepts,
        each with a row for every language, in the package's order.

    Raises:
        ValueError: for a language that is not there, with those that are.
    """
    unknown = [language for language in languages if language not in (*LANGUAGES, "emoji")]
    if unknown or not languages:
        raise ValueError(f"languages has {unknown or 'nothing'}: there are {', '.join((*LANGUAGES, 'emoji'))}")
    for language in LANGUAGES:
        emoji.config.load_language(language)
    wide = pd.DataFrame(
        [
            {**{language: _clean(names[language]) for language in LANGUAGES}, "emoji": character}
            for character, names in emoji.EMOJI_DATA.items()
            if _is_concept(character, names)
        ]
    )
    doubled = pd.concat([wide[language].str.casefold().duplicated(keep=False) for language in LANGUAGES], axis=1)
    wide = wide[~doubled.any(axis=1) & (wide[list(LANGUAGES)] != "").all(axis=1)]
    tidy = wide.assign(concept=wide["en"]).melt("concept", list(languages), "language", "word")
    order = {concept: i for i, concept in enumerate(wide["en"])}
    return tidy.sort_values("concept", key=lambda c: c.map(order), kind="stable", ignore_index=True)


def _is_concept(character: str, names: dict) -> bool:
    points = {ord(c) for c in character}
    return (
        names["status"] == emoji.STATUS["fully_qualified"]
        and all(language in names for language in LANGUAGES)
        and not points & {_KEYCAP}
        and not any(point in kind for point in points for kind in (_SKIN, _CLOCK_FACES, _LETTERS_OF_FLAGS))
        and not (_BLACK_FLAG in points and len(points) > 2)
        and not (_JOINER in points and points & _VARIANTS)
    )


def _clean(name: str) -> str:
    # NFC: Korean and accented letters come decomposed in places, and tokenize otherwise then.
    text = unicodedata.normalize("NFC", name.strip(":").replace("_", " "))
    return re.sub(r"\s+", " ", re.sub(r"\([^)]*\)|（[^）]*）", " ", text)).strip()
