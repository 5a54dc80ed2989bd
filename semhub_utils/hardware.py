"""Which model the hardware takes, when a chapter is told `model = "auto"`."""

import importlib.util
import os
from dataclasses import dataclass

import torch

from semhub_utils.registry import AUTO

_FOR = {"text": "", "image": "For pictures ", "audio": "For sounds "}
# qwen2.5-7b is 15.2 GB in bfloat16 and 5.9 GB in 4 bit; the rest is for states and logits over 152,000 tokens.
# llava-1.5-7b is 14.1 and 4.5 GB, with 576 tokens a picture; qwen2-audio-7b 16.8 and 6.6 GB, with 25 a second.
_BFLOAT16_GB, _FOUR_BIT_GB = 20, 8


@dataclass(frozen=True)
class Choice:
    """A model's name, how it is quantized, and the sentence that says why; it prints as the sentence."""

    model: str
    quantize: str | None
    sentence: str

    def __str__(self) -> str:
        return self.sentence


def chosen(device: str | None = None, takes: str = "text") -> Choice:
    """What `load("auto")` takes on this machine, or without its GPU if `device` is "cpu".

    Without a CUDA GPU the embedded model; on a GPU of 20 GB or more qwen2.5-7b in bfloat16, which is ungated; on a
    smaller one, such as Colab's T4, the same in 4 bit, for which bitsandbytes must be installed. Where the GPU has
    less than 8 GB, or bitsandbytes is missing, the embedded model on the GPU. The environment variable SEMHUB_MODEL
    names another one. With `takes="image"` or "audio" it is the embedded model with eyes or ears, also where
    SEMHUB_MODEL names the embedded one, and llava-1.5-7b or qwen2-audio-7b in place of qwen2.5-7b.

    Raises:
        ValueError: for another `takes`.
    """
    check_takes(takes)
    small, large = AUTO[takes]
    gpu, gigabytes = ("", 0.0) if device == "cpu" else _gpu()
    found = f"GPU: {gpu}, {gigabytes:.0f} GB." if gpu else "No CUDA GPU was found."
    here = f'{found} {_FOR[takes]}model = "auto" is'
    if asked := os.environ.get("SEMHUB_MODEL"):
        asked = small if asked == AUTO["text"][0] else asked
        return Choice(asked, None, f"{here} {asked} here, as SEMHUB_MODEL says.")
    if not gpu:
        return Choice(small, None, f"{here} {small}, the embedded model, on the CPU.")
    if gigabytes >= _BFLOAT16_GB:
        return Choice(large, None, f"{here} {large} in bfloat16.")
    if gigabytes < _FOUR_BIT_GB:
        return Choice(small, None, f"{here} {small}, the embedded model: 7B does not fit.")
    if importlib.util.find_spec("bitsandbytes") is None:
        why = "`pip install bitsandbytes` makes room for a larger one"
        return Choice(small, None, f"{here} {small}, the embedded model; {why}.")
    return Choice(large, "4bit", f"{here} {large} in 4 bit.")


def check_takes(takes: str) -> None:
    """Refuse what no model of the book takes."""
    if takes not in AUTO:
        raise ValueError(f"takes is {takes!r}: give {', '.join(map(repr, AUTO))}")


def _gpu() -> tuple[str, float]:
    if not torch.cuda.is_available():
        return "", 0.0
    first = torch.cuda.get_device_properties(0)
    return first.name, first.total_memory / 1e9
