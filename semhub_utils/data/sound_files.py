"""A sound of any kind as one channel at 16 kHz, read in pieces so that its length does not decide the memory."""

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from semhub_utils.data.files import check_file

RATE = 16_000  # samples a second, what the speech encoders of the book take
LONGEST = 30.0  # seconds, what they hear at once
_RATES = (4_000, 400_000)
_SILENT = 1e-4  # of full scale
_BLOCK = 65_536
_CUT_OFF = ("(should be", "ended unexpectedly", "lacks an end-of-stream bit")

Waveform = Float[np.ndarray, " samples"]
Sound = str | Path | np.ndarray
Reader = Callable[[int, int], Iterator[np.ndarray]]  # the samples from one to before another, in blocks


def open_sound(
    sound: Sound, rate: int | None = None, start: float = 0.0, seconds: float | None = None
) -> Float[np.ndarray, " heard"]:
    """A sound as float32 samples of one channel at 16 kHz, the mean of its channels.

    Args:
        sound: a file (WAV, FLAC, OGG, MP3, or what else libsndfile reads), or samples between -1 and 1, of shape
            (samples,) or (samples, channels).
        rate: of samples, how many there are in a second; by default 16,000. A file says so itself.
        start: where to begin, in seconds.
        seconds: how much to take, up to 30; by default all of it.

    Raises:
        FileNotFoundError: if the file is not there.
        ValueError: for a file that is empty, cut off, or no sound; for silence, for samples that are no numbers, a rate
            out of 4,000 to 400,000, and a sound of more than 30 seconds of which no part is asked for.
        ModuleNotFoundError: without the packages soundfile and soxr.
    """
    if not start >= 0 or not (seconds is None or 0 < seconds <= LONGEST):
        raise ValueError(
            f"start is {start} and seconds is {seconds}: give a start of 0 or more, and up to {LONGEST:g} seconds"
        )
    if isinstance(sound, np.ndarray):
        name, read, rate, length = "the sound", *_samples(sound, rate)
    elif rate is not None:
        raise ValueError(f"rate is {rate}, and {sound} is a file, which says its rate itself: leave it out")
    else:
        path = check_file(Path(sound), "a sound")
        name, read, rate, length = str(path), *_file(path)
    if not _RATES[0] <= rate <= _RATES[1]:
        raise ValueError(f"{name} has {rate} samples a second: a sound here has {_RATES[0]:,} to {_RATES[1]:,}")
    if seconds is None and length / rate - start > LONGEST:
        raise ValueError(
            f"{name} is {length / rate:,.1f} s long, and {LONGEST:g} s are heard at once: take a part of it, "
            f"such as open_sound(sound, start=0, seconds={LONGEST:g})"
        )
    if start >= length / rate:
        raise ValueError(f"start is {start} s, and {name} is {length / rate:.1f} s long")
    first = round(start * rate)
    heard = _resampled(read(first, min(first + round((seconds or LONGEST) * rate), length)), rate)
    if not np.isfinite(heard).all():
        raise ValueError(f"{name} has samples that are not finite numbers: it is damaged, or is no sound")
    if np.abs(heard).max(initial=0) < _SILENT:
        raise ValueError(f"{name} is silent where it was read: give a sound, or another start")
    return heard


def _samples(sound: np.ndarray, rate: int | None) -> tuple[Reader, int, int]:
    if sound.ndim not in (1, 2) or sound.size == 0 or not np.issubdtype(sound.dtype, np.floating):
        raise ValueError(
            f"the sound is an array of {sound.dtype} of shape {sound.shape}: give floats of shape (samples,) or "
            f"(samples, channels)"
        )
    if sound.ndim == 2 and sound.shape[1] > 64:
        raise ValueError(f"the sound has {sound.shape[1]} channels: give (samples, channels), perhaps its transpose")
    if np.abs(sound).max() > 100:
        raise ValueError(f"the sound goes up to {np.abs(sound).max():g}: give samples between -1 and 1")
    whole = sound if sound.ndim == 2 else sound[:, None]

    def read(first: int, end: int) -> Iterator[np.ndarray]:
        for start in range(first, end, _BLOCK):
            yield whole[start : min(start + _BLOCK, end)].mean(1).astype(np.float32)

    return read, RATE if rate is None else rate, len(whole)


def _file(path: Path) -> tuple[Reader, int, int]:
    if find_spec("soundfile") is None:
        raise ModuleNotFoundError(f"{path.name} is a sound: to read it run `pip install soundfile`")
    try:
        with _opened(path) as file:
            rate, length, log = file.samplerate, file.frames, file.extra_info
    except RuntimeError as error:  # libsndfile's own is one
        raise ValueError(
            f"{path} cannot be read as a sound, it may be damaged or be something else: {error}"
        ) from error
    if length == 0:
        raise ValueError(f"{path} is a sound without a sample: it was cut off, or never written")
    # libsndfile reads what there is of a file that was cut off, and says so in its log only.
    if any(sign in log for sign in _CUT_OFF) or length >= 2**62 or _mp3_cut_off(path):
        raise ValueError(f"{path} is cut off: it holds less than its head says. Copy or download it again")

    def read(first: int, end: int) -> Iterator[np.ndarray]:
        at = first
        try:
            with _opened(path) as file:
                with _quiet():
                    file.seek(first)
                while at < end:
                    with _quiet():
                        block = file.read(min(_BLOCK, end - at), dtype="float32", always_2d=True)
                    if not len(block):
                        break
                    at += len(block)
                    yield block.mean(1)
        except RuntimeError as error:
            raise ValueError(f"{path} is damaged or cut off after {at / rate:.1f} s: {error}") from error
        if at < end - rate // 10:  # an MP3's length may be a guess, off by a frame or two
            raise ValueError(f"{path} is cut off: it says {length / rate:.1f} s and holds {at / rate:.1f} s")

    return read, rate, length


def _mp3_cut_off(path: Path) -> bool:
    """Whether an MP3 is shorter than its first frame says; the decoder fills what is missing with silence."""
    with path.open("rb") as file:
        head = file.read(16_384)
    at = max(head.find(b"Xing"), head.find(b"Info"))
    if at < 0 or not (head[:3] == b"ID3" or head[:1] == b"\xff") or len(head) < at + 16:
        return False
    flags, *said = struct.unpack(">3I", head[at + 4 : at + 16])
    size = said[flags & 1]  # the number of bytes stands behind that of frames, where there is one
    return bool(flags & 2) and path.stat().st_size < 0.99 * size


def _opened(path: Path) -> Any:
    import soundfile  # late: a chapter without sounds needs it not

    with _quiet():
        return soundfile.SoundFile(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the decoder of MP3 from writing its warnings past Python into a reader's page."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _resampled(blocks: Iterator[np.ndarray], rate: int) -> np.ndarray:
    if rate == RATE:
        return np.concatenate([np.zeros(0, np.float32), *blocks])
    if find_spec("soxr") is None:
        raise ModuleNotFoundError("to bring a sound to 16 kHz run `pip install soxr`")
    import soxr  # late, as above

    stream = soxr.ResampleStream(rate, RATE, 1, dtype="float32")
    made = [stream.resample_chunk(np.ascontiguousarray(block)) for block in blocks]
    return np.concatenate([*made, stream.resample_chunk(np.zeros(0, np.float32), last=True)])
