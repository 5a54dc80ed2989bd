"""How a model is loaded: one of the registry, of a hub, or of a folder."""

import difflib
import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoProcessor,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from semhub_utils import embedded, hardware, stitched
from semhub_utils.language_model import LanguageModel
from semhub_utils.registry import FAMILIES, REGISTRY, Family, ModelSpec
from semhub_utils.soft_tokens import SoftTokens, hub_pictures, hub_sounds


def load(
    model: str = "gemma-3-270m",
    *,
    quantize: str | None = None,
    device: str | None = None,
    revision: str | None = None,
    takes: str = "text",
) -> LanguageModel:
    """Load a model and its tokenizer: by default the embedded one, without a network.

    Args:
        model: a name in `REGISTRY`, any hub id that transformers can load as a causal language model, or as an
            image model of the LLaVA, Chameleon, Idefics3 or SmolVLM family, or as Qwen2-Audio, or a folder; "auto" is
            what `chosen()` says of this machine.
        quantize: "4bit" or "8bit" (bitsandbytes; needs a GPU).
        device: "cpu", "cuda" or "cuda:1"; by default the GPUs there are, else the CPU.
        revision: a hub commit, branch or tag, in place of the registry's.
        takes: "image" where the model will be shown pictures, "audio" where it will be played sounds: "auto" is then
            one that takes them, and any other name that of one; every model takes text.

    Returns:
        The model in evaluation mode, float32 on a CPU and bfloat16 on a GPU.

    Raises:
        ValueError: for a name that is not known, with the nearest ones; for an unknown `quantize` or `takes`; for a
            model that does not take what it is to take.
        RuntimeError: if a GPU is asked for and there is none, or quantizing without bitsandbytes.
        OSError: if the hub or the folder does not have the model, with the next step.
    """
    if quantize not in (None, "4bit", "8bit"):
        raise ValueError(f"quantize is {quantize!r}: give '4bit', '8bit' or None")
    hardware.check_takes(takes)
    if model == "auto":
        choice = hardware.chosen(device, takes)
        model, quantize = choice.model, quantize or choice.quantize
    device = _device(device, quantize)
    if quantize and importlib.util.find_spec("bitsandbytes") is None:
        raise RuntimeError(f"quantize={quantize!r} needs the package bitsandbytes: run `pip install bitsandbytes`")
    spec = _find(model)
    if spec.source.startswith("package:"):
        if revision:
            raise ValueError(f"revision is {revision!r}: the embedded model has one, its package's; leave it out")
        _check_takes(spec, takes)
        return _embedded(spec, device, quantize)
    try:
        commit = revision or ("main" if spec.revision == "local" else spec.revision)
        family = FAMILIES.get(AutoConfig.from_pretrained(spec.source, revision=commit).model_type)
        spec = replace(spec, takes=("text", family.kind) if family else spec.takes)
        _check_takes(spec, takes)  # before the download
        maker = AutoProcessor if family else AutoTokenizer
        reader = maker.from_pretrained(spec.source, revision=commit)
        loaded = _weights(spec.source, device, quantize, commit, family)
    except _TakesNot:
        raise
    except (OSError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise OSError(
            f"{spec.source!r} could not be loaded from the hub or from disk: {reason}\n"
            f"Check the id ({_nearest(model)}), the network, and for a gated model "
            f"its licence page and `hf auth login`. The embedded model, sh.load(), needs none of these."
        ) from error
    spec = replace(spec, revision=getattr(loaded.config, "_commit_hash", None) or spec.revision)
    if family is None:
        return LanguageModel(loaded, reader, spec)
    encoder = {"image": hub_pictures, "audio": hub_sounds}[family.kind](loaded, reader, family.told)
    soft = SoftTokens(loaded.get_input_embeddings(), {family.kind: encoder})
    return LanguageModel(loaded, reader.tokenizer, spec, soft)


class _TakesNot(ValueError):
    """Told apart from the errors of transformers, which are ValueErrors too."""


def _check_takes(spec: ModelSpec, takes: str) -> None:
    if takes not in spec.takes:
        able = ", ".join(one.name for one in REGISTRY.values() if takes in one.takes)
        raise _TakesNot(f"{spec.name} takes {' and '.join(spec.takes)}, and is to be given an {takes}: give {able}")


def _embedded(spec: ModelSpec, device: str, quantize: str | None) -> LanguageModel:
    folder = embedded.path()
    tokenizer: PreTrainedTokenizerBase = _fast_tokenizer(folder)
    lm = LanguageModel(_weights(str(folder), device, quantize), tokenizer, spec)
    kind = next((one for one in spec.takes if one != "text"), None)
    return stitched.stitch(lm, kind=kind) if kind else lm


def _device(device: str | None, quantize: str | None) -> str:
    has_gpu = torch.cuda.is_available()
    device = device or ("auto" if has_gpu else "cpu")
    wants = f"device={device!r}" if device.startswith("cuda") else f"quantize={quantize!r}" if quantize else None
    if has_gpu and device.startswith("cuda") and (torch.device(device).index or 0) >= torch.cuda.device_count():
        raise RuntimeError(f"device={device!r}: torch sees {torch.cuda.device_count()} GPU, counted from cuda:0")
    if wants and (not has_gpu or device == "cpu"):
        raise RuntimeError(
            f"{wants} needs a CUDA GPU and torch {'is told to use the CPU' if has_gpu else 'sees none'}: leave it "
            f"out to run on the CPU, or in Colab choose Runtime > Change runtime type > GPU"
        )
    return device


def _find(model: str) -> ModelSpec:
    if model in REGISTRY:
        return REGISTRY[model]
    if Path(model).is_dir():
        return ModelSpec(Path(model).resolve().name, model, "local")
    if "/" in model and not model.startswith((".", "/", "~")):
        return ModelSpec(model.split("/")[-1], model)
    raise ValueError(
        f"no model is called {model!r} and no folder has that name ({_nearest(model)}). Names of the book: "
        f"{', '.join(REGISTRY)}; or give any hub id such as 'org/name'."
    )


def _nearest(model: str) -> str:
    close = difflib.get_close_matches(model.split("/")[-1].lower(), REGISTRY, n=3, cutoff=0.4)
    return "nearest: " + ", ".join(repr(name) for name in close) if close else "nothing in the book is near it"


def _weights(
    source: str, device: str, quantize: str | None, revision: str = "main", family: Family | None = None
) -> PreTrainedModel:
    config: dict[str, dict[str, Any]] = {
        "4bit": {"load_in_4bit": True, "bnb_4bit_compute_dtype": torch.bfloat16},
        "8bit": {"load_in_8bit": True},
    }
    maker = family.maker if family else AutoModelForCausalLM
    return maker.from_pretrained(
        source,
        revision=revision,
        dtype=torch.float32 if device == "cpu" else torch.bfloat16,
        device_map=None if device == "cpu" else device,
        quantization_config=BitsAndBytesConfig(**config[quantize]) if quantize else None,
    )


def _fast_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    # AutoTokenizer parses the 33 MB file several times, and a tokenizer_object would be copied: tests hold this one
    # equal to AutoTokenizer's.
    return PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        pad_token="<pad>",
        mask_token="<mask>",
        padding_side="left",
    )
