"""What this machine can compute with, which models fit it, and which one a chapter takes when told "auto"."""

import importlib.util
import math
import os
from dataclasses import dataclass

import pandas as pd
import psutil
import torch

from semhub_utils import parallel
from semhub_utils.registry import AUTO, MIDDLE, REGISTRY, TOO_LARGE_FOR_FLOAT16, ModelSpec

_FOR = {"text": "", "image": "For pictures ", "audio": "For sounds "}
# What states and logits of a batch take beside the weights, at the least, in GB.
_ROOM = 1.0
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


def checked_device(device: str | None) -> str:
    """Where a model goes: the device itself if it is there; by default "auto", all GPUs, or "cpu" without one.

    Of several processes side by side each takes by default the GPU of its number, since each has the whole model.

    Raises:
        ValueError: for a name that is none.
        RuntimeError: for a device that is not there, with the way out.
    """
    has_gpu = torch.cuda.is_available()
    device = device or (parallel.own_gpu() or "auto" if has_gpu else "cpu")
    if device in ("cpu", "auto"):
        return device if has_gpu else "cpu"
    kind, _, number = device.partition(":")
    if kind not in ("cuda", "mps") or (number and not number.isdigit()):
        raise ValueError(f"device is {device!r}: give 'cpu', 'cuda', a GPU by number such as 'cuda:1', or 'mps'")
    if kind == "mps":
        if not torch.backends.mps.is_available():
            raise RuntimeError(f"device={device!r} needs an Apple GPU and torch sees none: leave it out")
        return device
    if not has_gpu:
        raise RuntimeError(
            f"device={device!r} needs a CUDA GPU and torch sees none: leave it out to run on the CPU, or in Colab "
            f"choose Runtime > Change runtime type > GPU"
        )
    if int(number or 0) >= torch.cuda.device_count():
        raise RuntimeError(f"device={device!r}: torch sees {torch.cuda.device_count()} GPU, counted from cuda:0")
    return device


def precision(device: str, model_type: str = "") -> torch.dtype:
    """In which numbers a model computes there: `model_type` is what its configuration calls its family.

    float32 on a CPU, where bfloat16 is many times slower. On a GPU bfloat16 if it has it (from the A100 and the RTX
    30 on), else float16, as on Colab's T4, or float32 for a family whose states are too large for float16.
    """
    if device == "cpu":
        return torch.float32
    if device != "mps" and torch.cuda.get_device_capability()[0] >= 8:
        return torch.bfloat16
    return torch.float32 if model_type in TOO_LARGE_FOR_FLOAT16 else torch.float16


def rounding(spec: ModelSpec, numbers: torch.dtype, device: str, quantize: str | None) -> str | None:
    """How a model is rounded so that it fits the memory that is free: as asked, or on a GPU to 4 bit if need be.

    A GPU that would hold the model in 4 bit and not in 16 gets it in 4 bit, with a sentence; where even that is too
    much, or bitsandbytes is missing, a part of the model waits in the host's memory, which is slow.

    Raises:
        RuntimeError: with what is needed, what is free, and what would fit.
    """
    needed, free = _needs(spec, quantize, numbers.itemsize), _free(device)
    if needed <= free:
        return quantize
    written = quantize.replace("bit", " bit") if quantize else str(numbers).removeprefix("torch.")
    place = "the host" if device in ("cpu", "mps") else "the GPU"
    short = f"{spec.name} in {written} needs {needed:.1f} GB of the memory of {place}, and {free:.1f} GB are free"
    ways = _smaller(spec, numbers.itemsize, free)
    if place == "the GPU" and quantize is None:
        small = _needs(spec, "4bit", numbers.itemsize)
        if small <= free and importlib.util.find_spec("bitsandbytes"):
            print(f"{short}: it is loaded in 4 bit, which takes {small:.1f} GB.", flush=True)
            return "4bit"
        if device == "auto" and needed <= free + _free("cpu"):
            print(f"{short}: the rest waits in the host's memory, which is slow.{ways}", flush=True)
            return None
    raise RuntimeError(f"{short}.{ways}")


def check_room(spec: ModelSpec, numbers: torch.dtype, device: str) -> None:
    """Refuse a part of a model that does not fit the memory of its device.

    Raises:
        RuntimeError: with what is needed and what is free.
    """
    needed, free = _needs(spec, None, numbers.itemsize), _free(device)
    if needed > free:
        raise RuntimeError(
            f"each process's part of {spec.name} needs {needed:.1f} GB, and {free:.1f} GB are free: start more of them"
        )


def _smaller(spec: ModelSpec, each: int, free: float) -> str:
    """What would fit in its place, as sentences."""
    rounded = {quantize: _needs(spec, quantize, each) for quantize in ("8bit", "4bit")}
    ways = [f"quantize={name!r} ({needed:.1f} GB)" for name, needed in rounded.items() if needed <= free]
    others = [one.name for one in REGISTRY.values() if one.takes == spec.takes and _needs(one, None, each) <= free]
    ways += [f"a smaller model ({', '.join(others)})"] if others else []
    return f" What would fit: {'; '.join(ways)}." if ways else ""


def _needs(spec: ModelSpec, quantize: str | None, each: int) -> float:
    return spec.gigabytes(quantize, each) + _ROOM


def _free(device: str) -> float:
    """The free memory in GB: of the host for a CPU, of all GPUs for "auto"."""
    if device in ("cpu", "mps"):
        return psutil.virtual_memory().available / 1e9
    numbers = range(torch.cuda.device_count()) if device == "auto" else [torch.device(device).index or 0]
    return sum(torch.cuda.mem_get_info(number)[0] for number in numbers) / 1e9


def models() -> pd.DataFrame:
    """The models of the book, and which of them fit this machine.

    Returns:
        A row a model, by its name: what it takes, its class, its size, its memory in GB (in units of 10^9 bytes) in
        bfloat16 and in 4 bit, its licence, where it is loaded from and at which commit, its blocks and which of them
        this book calls the middle (depth 0.35 to 0.85), how a word carries its space in its vocabulary, what it is good
        for, and in "fits here" how it would be loaded on this machine, with a gigabyte left for states and logits.
    """
    device = "auto" if torch.cuda.is_available() else "cpu"
    free = _free(device)
    rows = {}
    for spec in REGISTRY.values():
        first, last = math.ceil(MIDDLE[0] * spec.blocks), math.floor(MIDDLE[1] * spec.blocks)
        rows[spec.name] = {
            "takes": ", ".join(spec.takes),
            "parameters": spec.parameters,
            "bfloat16 GB": round(spec.gigabytes(), 1),
            "4 bit GB": round(spec.gigabytes("4bit"), 1),
            "fits here": _fits(spec, device, free),
            "licence": spec.licence,
            "good for": spec.good_for,
            "blocks": spec.blocks,
            "middle": f"{first} to {last}",
            "space": spec.space,
            "class": spec.made_by,
            "loaded from": spec.source,
            "revision": spec.revision,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("name")


def _fits(spec: ModelSpec, device: str, free: float) -> str:
    each = precision(device).itemsize
    install = "" if importlib.util.find_spec("bitsandbytes") else ", with `pip install bitsandbytes`"
    ways = {
        None: "in float32" if each == 4 else "in 16 bit",
        "8bit": f"in 8 bit{install}",
        "4bit": f"in 4 bit{install}",
    }
    fitting = (said for quantize, said in ways.items() if _needs(spec, quantize, each) <= free)
    return next(fitting, f"no: {_needs(spec, '4bit', each):.1f} GB in 4 bit, and {free:.1f} GB are free")
