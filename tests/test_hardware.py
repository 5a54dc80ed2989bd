"""Which model a machine takes, and that load() takes it."""

import importlib.util
from types import SimpleNamespace

import psutil
import pytest
import torch

import semhub_utils as sh
from semhub_utils import hardware, loading
from semhub_utils.registry import TOO_LARGE_FOR_FLOAT16


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
        monkeypatch.setattr(torch.cuda, "device_count", lambda: int(gigabytes is not None))
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: ((gigabytes or 0) * 1e9,) * 2)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (7, 5) if (gigabytes or 0) < 20 else (8, 0))

    return build


@pytest.fixture
def hub(monkeypatch, llama):
    """Every model of the hub has the configuration of the small Llama, and nobody is asked for it."""

    def away(*_):
        raise loading.download.Away("nobody is asked")

    monkeypatch.setattr(loading.download, "expected", away)
    monkeypatch.setattr(loading.baichuan, "config_of", lambda *_, **__: None)
    monkeypatch.setattr(loading.baichuan, "native", lambda source, *_, **__: source)
    monkeypatch.setattr(loading.AutoConfig, "from_pretrained", lambda *_, **__: llama.model.config)


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


def test_a_model_that_takes_no_pictures_is_refused_before_it_is_loaded(monkeypatch, hub):
    def weights(*_, **__):
        pytest.fail("the weights were asked for")

    monkeypatch.setattr(loading, "_weights", weights)
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


def test_auto_loads_what_was_chosen(machine, monkeypatch, llama, hub):
    asked = {}

    def weights(source, device, quantize, *_, **__):
        asked.update(source=source, device=device, quantize=quantize)
        return llama.model

    monkeypatch.setattr(loading, "_weights", weights)
    monkeypatch.setattr(loading.AutoTokenizer, "from_pretrained", lambda *_, **__: llama.tokenizer)
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


@pytest.mark.parametrize(
    ("gigabytes", "asked", "expected"),
    [(None, None, "cpu"), (None, "cpu", "cpu"), (85, None, "auto"), (85, "cpu", "cpu"), (85, "cuda:0", "cuda:0")],
)
def test_the_device_is_every_gpu_there_is_or_the_cpu(machine, gigabytes, asked, expected):
    machine(gigabytes)
    assert hardware.checked_device(asked) == expected


def test_a_device_that_is_not_there_is_named_with_the_way_out(machine, monkeypatch):
    machine(85)
    with pytest.raises(RuntimeError, match=r"device='cuda:2': torch sees 1 GPU, counted from cuda:0"):
        hardware.checked_device("cuda:2")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="device='mps' needs an Apple GPU and torch sees none: leave it out"):
        hardware.checked_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert hardware.checked_device("mps") == "mps"
    for wrong in ("gpu", "cuda:one", "tpu"):
        with pytest.raises(ValueError, match=f"device is '{wrong}': give 'cpu', 'cuda', a GPU by number"):
            hardware.checked_device(wrong)


def test_the_numbers_are_those_that_the_device_computes_in(machine):
    machine(None)
    assert hardware.precision("cpu") == torch.float32
    assert hardware.precision("mps") == torch.float16
    machine(85)
    assert hardware.precision("auto") == hardware.precision("auto", "gemma3_text") == torch.bfloat16
    machine(15.8)  # a T4
    assert hardware.precision("cuda:0", "qwen2") == torch.float16
    assert hardware.precision("auto", "gemma3_text") == torch.float32


def test_states_of_the_embedded_model_do_not_fit_float16(embedded_lm):
    assert embedded_lm.model.config.model_type in TOO_LARGE_FOR_FLOAT16
    largest = torch.finfo(torch.float16).max
    with sh.record(embedded_lm) as states:
        embedded_lm("The capital of France is")
    assert max(float(state.abs().max()) for state in states.values()) > largest


def spare(monkeypatch, host):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=host * 1e9))


def test_a_model_too_large_for_the_memory_is_refused_with_what_would_fit(machine, monkeypatch):
    machine(None)
    spare(monkeypatch, 10)
    large = sh.REGISTRY["llama-3-8b"]
    with pytest.raises(RuntimeError, match=r"llama-3-8b in float32 needs 33\.1 GB .* host, and 10\.0 GB are") as error:
        hardware.rounding(large, torch.float32, "cpu", None)
    # In 4 bit: 6.98 10^9 numbers of 4.5 bits and 1.05 10^9 of 32, and one GB beside; in 8 bit it would be 12.2.
    assert "quantize='4bit' (9.1 GB)" in str(error.value)
    assert "8bit" not in str(error.value)
    assert "model (gemma-3-270m, bloom-560m, qwen2.5-0.5b, smollm2-135m-instruct, smollm2-135m)" in str(error.value)
    assert hardware.rounding(large, torch.float32, "cpu", "4bit") == "4bit"
    spare(monkeypatch, 0.5)
    with pytest.raises(RuntimeError, match=r"0\.5 GB are free\.$"):
        hardware.rounding(large, torch.float32, "cpu", "4bit")


def test_what_a_gpu_has_no_room_for_is_rounded_or_waits_outside_and_that_is_said(machine, monkeypatch, capsys):
    machine(15.8)
    spare(monkeypatch, 12)
    large, half = sh.REGISTRY["llama-3-8b"], torch.float16
    for device in ("auto", "cuda:0"):
        assert hardware.rounding(large, half, device, None) == "4bit"
        said = capsys.readouterr().out
        assert (
            "llama-3-8b in float16 needs 17.1 GB of the memory of the GPU, and 15.8 GB are free: it is loaded" in said
        )
        assert "in 4 bit, which takes 7.0 GB." in said
    for quantize in ("4bit", "8bit"):
        assert hardware.rounding(large, half, "auto", quantize) == quantize
    assert hardware.rounding(sh.REGISTRY["llama-2-7b"], half, "auto", None) is None
    assert capsys.readouterr().out == ""
    machine(15.8, bitsandbytes=False)
    assert hardware.rounding(large, half, "auto", None) is None
    said = capsys.readouterr().out
    assert "15.8 GB are free: the rest waits in the host's memory, which is slow." in said
    assert "What would fit: quantize='8bit' (10.1 GB); quantize='4bit' (7.0 GB)" in said
    with pytest.raises(RuntimeError, match=r"15\.8 GB are free"):
        hardware.rounding(large, half, "cuda:0", None)
    spare(monkeypatch, 1)
    with pytest.raises(RuntimeError, match=r"15\.8 GB are free"):
        hardware.rounding(large, half, "auto", None)
    machine(6)
    with pytest.raises(RuntimeError, match=r"llama-3-8b in 4 bit needs 7\.0 GB of the memory of the GPU, and 6\.0 GB"):
        hardware.rounding(large, half, "auto", "4bit")


def test_the_table_of_models_says_what_fits_this_machine(machine, monkeypatch):
    machine(None)
    spare(monkeypatch, 10)
    table = sh.models()
    assert list(table.index) == list(sh.REGISTRY)
    assert table.loc["gemma-3-270m", "fits here"] == "in float32"
    assert table.loc["llama-3-8b", "fits here"] == "in 4 bit"
    assert table.loc["qwen2-audio-7b", "fits here"] == "no: 10.1 GB in 4 bit, and 10.0 GB are free"
    assert table.loc["gemma-3-270m", "middle"] == "7 to 15"
    for name, spec in sh.REGISTRY.items():
        first, last = map(int, table.loc[name, "middle"].split(" to "))
        middle = [k for k in range(spec.blocks + 1) if 0.35 <= k / spec.blocks <= 0.85]
        assert (first, last) == (middle[0], middle[-1])
    machine(15.8, bitsandbytes=False)
    table = sh.models()
    assert table.loc["llama-2-7b", "fits here"] == "in 16 bit"
    assert table.loc["llama-3-8b", "fits here"] == "in 8 bit, with `pip install bitsandbytes`"
