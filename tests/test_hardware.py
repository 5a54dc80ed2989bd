"""Which model a machine takes, and that load() takes it."""

import importlib.util
from types import SimpleNamespace

import pytest
import torch

import semhub_utils as sh
from semhub_utils import loading


@pytest.fixture
def machine(monkeypatch):
    """A machine with a GPU of so many GB, or none, and with or without bitsandbytes."""
    monkeypatch.delenv("SEMHUB_MODEL", raising=False)

    def build(gigabytes=None, bitsandbytes=True):
        found = importlib.util.find_spec
        spec = SimpleNamespace() if bitsandbytes else None
        monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: spec if n == "bitsandbytes" else found(n, *a))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gigabytes is not None)
        properties = SimpleNamespace(name="Tesla T4", total_memory=(gigabytes or 0) * 1e9)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)

    return build


@pytest.mark.parametrize(
    ("gigabytes", "bitsandbytes", "model", "quantize"),
    [
        (None, True, "gemma-3-270m", None),
        (15.8, True, "qwen2.5-7b", "4bit"),  # what a T4 reports
        (15.8, False, "gemma-3-270m", None),
        (4, True, "gemma-3-270m", None),
        (23.7, False, "qwen2.5-7b", None),
        (85, True, "qwen2.5-7b", None),
    ],
)
def test_the_machine_chooses_the_model_and_says_so(machine, gigabytes, bitsandbytes, model, quantize):
    machine(gigabytes, bitsandbytes)
    choice = sh.chosen()
    assert (choice.model, choice.quantize) == (model, quantize)
    said = str(choice)
    assert f'model = "auto" is {model}' in said
    assert ("4 bit" in said) == (quantize == "4bit")
    assert said.startswith("No CUDA GPU" if gigabytes is None else f"GPU: Tesla T4, {gigabytes:.0f} GB")
    assert ("pip install bitsandbytes" in said) == (gigabytes == 15.8 and not bitsandbytes)


@pytest.mark.parametrize("takes", ["text", "image", "audio"])
def test_the_larger_model_is_one_of_the_book_takes_what_it_must_and_needs_no_account(machine, takes):
    machine(85)
    spec = sh.REGISTRY[sh.chosen(takes=takes).model]
    assert "gated" not in spec.licence
    assert takes in spec.takes


@pytest.mark.parametrize(
    ("takes", "gigabytes", "model", "quantize"),
    [
        ("image", None, "gemma-3-270m+efficientnet", None),
        ("image", 15.8, "llava-1.5-7b", "4bit"),
        ("image", 85, "llava-1.5-7b", None),
        ("audio", None, "gemma-3-270m+whisper-base", None),
        ("audio", 15.8, "qwen2-audio-7b", "4bit"),
        ("audio", 85, "qwen2-audio-7b", None),
    ],
)
def test_for_pictures_and_sounds_it_is_a_model_with_eyes_or_ears(machine, takes, gigabytes, model, quantize):
    machine(gigabytes)
    choice = sh.chosen(takes=takes)
    assert (choice.model, choice.quantize) == (model, quantize)
    named = {"image": "pictures", "audio": "sounds"}[takes]
    assert f'For {named} model = "auto" is {model}' in str(choice)


def test_a_model_that_takes_no_pictures_is_refused_before_it_is_loaded(monkeypatch, llama):
    def weights(*_, **__):
        pytest.fail("the weights were asked for")

    monkeypatch.setattr(loading, "_weights", weights)
    monkeypatch.setattr(loading.AutoConfig, "from_pretrained", lambda *_, **__: llama.model.config)
    for name in ("gemma-3-270m", "llama-3-8b"):
        message = rf"{name} takes text, and is to be given an image: give gemma-3-270m\+efficientnet, llava-1\.5-7b"
        with pytest.raises(ValueError, match=message):
            sh.load(name, takes="image")
    for call in (lambda: sh.load("gemma-3-270m", takes="smell"), lambda: sh.chosen(takes="smell")):
        with pytest.raises(ValueError, match="takes is 'smell': give 'text', 'image', 'audio'"):
            call()


def test_the_environment_names_another_model(machine, monkeypatch):
    machine(85)
    monkeypatch.setenv("SEMHUB_MODEL", "bloom-560m")
    assert (sh.chosen().model, sh.chosen().quantize) == ("bloom-560m", None)
    assert "bloom-560m here, as SEMHUB_MODEL says" in str(sh.chosen())
    # As the build of the book does, so that its pages are of the embedded model on every machine.
    monkeypatch.setenv("SEMHUB_MODEL", "gemma-3-270m")
    assert sh.chosen().model == "gemma-3-270m"
    assert sh.chosen(takes="image").model == "gemma-3-270m+efficientnet"
    assert sh.chosen(takes="audio").model == "gemma-3-270m+whisper-base"


def test_without_its_gpu_a_machine_takes_the_embedded_model(machine):
    machine(85)
    assert sh.chosen("cpu").model == "gemma-3-270m"


def test_auto_loads_what_was_chosen(machine, monkeypatch, llama):
    asked = {}

    def weights(source, device, quantize, revision="main", seeing=False):
        asked.update(source=source, device=device, quantize=quantize)
        return llama.model

    monkeypatch.setattr(loading, "_weights", weights)
    monkeypatch.setattr(loading.AutoTokenizer, "from_pretrained", lambda *_, **__: llama.tokenizer)
    monkeypatch.setattr(loading.AutoConfig, "from_pretrained", lambda *_, **__: llama.model.config)
    machine(15.8)
    assert sh.load("auto").spec.name == "qwen2.5-7b"
    assert asked == {"source": "Qwen/Qwen2.5-7B", "device": "auto", "quantize": "4bit"}
    assert sh.load("auto", quantize="8bit").spec.name == "qwen2.5-7b"
    assert asked["quantize"] == "8bit"
    monkeypatch.setenv("SEMHUB_MODEL", "smollm2-135m")
    assert sh.load("auto").spec.name == "smollm2-135m"
    assert asked["quantize"] is None


def test_auto_is_the_embedded_model_under_its_own_name_on_a_cpu(machine, embedded_folder):
    machine(None)
    assert sh.load("auto").spec is sh.REGISTRY["gemma-3-270m"]
