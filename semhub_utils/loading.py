"""How a model is loaded: one of the registry, of a hub, or of a folder."""

import difflib
import importlib.util
import pickle
import shutil
import weakref
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
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from semhub_utils import baichuan, cache, download, embedded, hardware, parallel, stitched
from semhub_utils.language_model import LanguageModel
from semhub_utils.registry import DEFAULT, FAMILIES, REGISTRY, Family, ModelSpec
from semhub_utils.soft_tokens import SoftTokens, hub_pictures, hub_sounds


def load(
    model: str = DEFAULT,
    *,
    quantize: str | None = None,
    device: str | None = None,
    revision: str | None = None,
    takes: str = "text",
    tensor_parallel: bool = False,
) -> LanguageModel:
    """Load a model and its tokenizer: by default the embedded one, without a network.

    What has to be downloaded is said before, with its size; a download that was stopped goes on where it was.

    Args:
        model: a name in `REGISTRY` (`models()` shows them), any hub id that transformers can load as a causal language
            model, or as an image or audio model of the families in `registry.FAMILIES`, or a folder; "auto" is what
            `chosen()` says of this machine.
        quantize: "4bit" (NF4) or "8bit", by bitsandbytes, on a GPU or a CPU; by default 4 bit on a GPU that would not
            hold the model otherwise, and none elsewhere.
        device: "cpu", "cuda", "cuda:1" or "mps"; by default the GPUs there are, else the CPU.
        revision: a hub commit, branch or tag, in place of the registry's.
        takes: "image" where the model will be shown pictures, "audio" where it will be played sounds: "auto" is then
            one that takes them, and any other name that of one; every model takes text.
        tensor_parallel: share each weight among the processes that torchrun started, by transformers' own plan for the
            model's family; without it the blocks are spread over the GPUs there are, and under torchrun each process
            has the whole model.

    Returns:
        The model in evaluation mode: float32 on a CPU; on a GPU bfloat16 if it computes in it, else float16, or float32
        for the families whose states are too large for that.

    Raises:
        ValueError: for a name that is not known, with the nearest ones; for an unknown `quantize` or `takes`; for a
            model that does not take what it is to take; for `tensor_parallel` with a family that has no plan, heads
            that do not divide, a device or `quantize`.
        RuntimeError: if a GPU is asked for and there is none, if the memory is too small, quantizing without
            bitsandbytes, or `tensor_parallel` without torchrun.
        OSError: if the hub or the folder does not have the model, if it is gated, or if the disk is too small, with
            the next step.
    """
    if quantize not in (None, "4bit", "8bit"):
        raise ValueError(f"quantize is {quantize!r}: give '4bit', '8bit' or None")
    hardware.check_takes(takes)
    if model == "auto":
        choice = hardware.chosen(device, takes)
        model, quantize = choice.model, quantize or choice.quantize
    if tensor_parallel:
        device = parallel.tensor_parallel_device(device, quantize)
    device = hardware.checked_device(device)
    if quantize and importlib.util.find_spec("bitsandbytes") is None:
        raise RuntimeError(f"quantize={quantize!r} needs the package bitsandbytes: run `pip install bitsandbytes`")
    spec = _find(model)
    if spec.source.startswith("package:"):
        if revision:
            raise ValueError(f"revision is {revision!r}: {spec.name} has one, its package's; leave it out")
        _check_takes(spec, takes)
        if tensor_parallel:
            parallel.check_plan(AutoModelForCausalLM, AutoConfig.from_pretrained(_folder(spec)), spec.name)
        return _embedded(spec, device, quantize)
    commit = revision or ("main" if spec.revision == "local" else spec.revision)
    away: download.Away | None = None
    try:
        try:
            is_folder = spec.revision == "local"
            plan = download.in_folder(spec.source) if is_folder else download.expected(spec.source, commit)
        except download.Away as error:
            plan, away = None, error
        found: dict[str, Any] = {"revision": commit, "local_files_only": away is not None}
        config = baichuan.config_of(spec.source, **found) or AutoConfig.from_pretrained(spec.source, **found)
        family = FAMILIES.get(config.model_type)
        spec = replace(spec, takes=("text", family.kind) if family else spec.takes)
        _check_takes(spec, takes)  # before the download
        if tensor_parallel:
            parallel.check_plan(family.maker if family else AutoModelForCausalLM, config, spec.name)
        if plan is not None:
            quantize = _rounding(spec, config, device, quantize, plan, tensor_parallel)
            if parallel.is_first():
                download.announce(spec, plan)
        source = baichuan.native(spec.source, **found)
        maker = AutoProcessor if family else AutoTokenizer
        reader = maker.from_pretrained(source, **found)
        shared = parallel.told() if tensor_parallel else {}
        loaded = _weights(source, device, quantize, family, config.model_type, **found, **shared)
    except (_TakesNot, parallel.PlanError):
        raise
    except (OSError, ValueError, pickle.UnpicklingError) as error:
        raise download.explained(error, spec, commit, _nearest(model), away) from error
    if spec.revision != "local":
        spec = replace(spec, revision=download.commit_of(spec.source, commit))
    if family is None:
        return LanguageModel(loaded, reader, spec)
    encoder = {"image": hub_pictures, "audio": hub_sounds}[family.kind](loaded, reader, family.told)
    soft = SoftTokens(loaded.get_input_embeddings(), {family.kind: encoder})
    return LanguageModel(loaded, reader.tokenizer, spec, soft)


def _rounding(
    spec: ModelSpec,
    config: PretrainedConfig,
    device: str,
    quantize: str | None,
    plan: download.Download,
    shared: bool,
) -> str | None:
    if not spec.parameters:
        # Of what the book does not know, the files say how large it is; how much of it are matrices, they do not.
        written = getattr(config, "dtype", None) or getattr(config, "torch_dtype", None) or torch.bfloat16
        count = plan.size // getattr(torch, str(written).removeprefix("torch.")).itemsize
        spec = replace(spec, parameters=count, matrices=count)
    numbers = hardware.precision(device, config.model_type)
    if not shared:
        return hardware.rounding(spec, numbers, device, quantize)
    if device != "cpu":  # each GPU holds its part; the host's memory holds them all
        count = parallel.processes()
        spec = replace(spec, parameters=spec.parameters // count, matrices=spec.matrices // count)
    hardware.check_room(spec, numbers, device)
    return None


class _TakesNot(ValueError):
    """Told apart from the errors of transformers, which are ValueErrors too."""


def _check_takes(spec: ModelSpec, takes: str) -> None:
    if takes not in spec.takes:
        able = ", ".join(one.name for one in REGISTRY.values() if takes in one.takes)
        raise _TakesNot(f"{spec.name} takes {' and '.join(spec.takes)}, and is to be given an {takes}: give {able}")


def _embedded(spec: ModelSpec, device: str, quantize: str | None) -> LanguageModel:
    folder = _folder(spec)
    tokenizer: PreTrainedTokenizerBase = _fast_tokenizer(folder, _package(spec))
    model_type = AutoConfig.from_pretrained(folder).model_type
    lm = LanguageModel(_weights(str(folder), device, quantize, model_type=model_type), tokenizer, spec)
    kind = next((one for one in spec.takes if one != "text"), None)
    return stitched.stitch(lm, kind=kind) if kind else lm


def _package(spec: ModelSpec) -> str:
    return spec.source.removeprefix("package:")


def _folder(spec: ModelSpec) -> Path:
    return embedded.path(_package(spec))


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
    source: str,
    device: str,
    quantize: str | None,
    family: Family | None = None,
    model_type: str = "",
    **found: Any,
) -> PreTrainedModel:
    """The weights, each straight to where it computes: no copy of the whole is made in the host's memory."""
    precision = hardware.precision(device, model_type)
    config: dict[str, dict[str, Any]] = {
        "4bit": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": precision},
        "8bit": {"load_in_8bit": True},
    }
    maker = family.maker if family else AutoModelForCausalLM
    shared = found.keys() & parallel.TOLD  # transformers itself then says where each part goes
    away = cache.scratch("offload") if device == "auto" else None
    made = maker.from_pretrained(
        source,
        dtype=precision,
        device_map=None if shared or (device == "cpu" and not quantize) else device,
        quantization_config=BitsAndBytesConfig(**config[quantize]) if quantize else None,
        **({"offload_folder": str(away)} if away else {}),
        **found,
    )
    if away:
        weakref.finalize(made, shutil.rmtree, away, ignore_errors=True)
    return made


def _fast_tokenizer(folder: Path, package: str) -> PreTrainedTokenizerFast:
    # AutoTokenizer parses the 33 MB file several times, and a tokenizer_object would be copied: tests hold this one
    # equal to AutoTokenizer's.
    names = {f"{part}_token": token for part, token in embedded.SPECIAL[package].items()}
    return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), padding_side="left", **names)
