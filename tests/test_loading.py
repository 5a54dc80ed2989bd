import builtins
import gc
import importlib.metadata
import importlib.util
import json
import shutil
import sys
import time

import huggingface_hub.constants
import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

import memory
import semhub_utils as sh
from semhub_utils import baichuan, download, embedded, hardware, loading


def test_the_names_of_the_registry_are_those_of_its_entries():
    assert all(spec.name == name for name, spec in sh.REGISTRY.items())
    assert all(spec.source and spec.licence and spec.revision for spec in sh.REGISTRY.values())
    sources = [(spec.source, spec.takes) for spec in sh.REGISTRY.values()]
    assert len(set(sources)) == len(sources)


def test_the_embedded_model_is_the_default_and_is_named_by_its_hash(embedded_lm):
    assert embedded_lm.spec is sh.REGISTRY["gemma-3-270m"]
    assert embedded_lm.spec.revision == f"sha256:{embedded.SHA256}"
    assert repr(embedded_lm) == "gemma-3-270m: 18 blocks, d_model 640, on cpu"


def test_the_embedded_model_computes_in_float32_and_for_evaluation(embedded_lm):
    assert {p.dtype for p in embedded_lm.model.parameters()} == {torch.float32}
    assert not embedded_lm.model.training


@pytest.fixture(scope="module")
def folder(llama, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny-one"
    llama.model.save_pretrained(path)
    llama.tokenizer.save_pretrained(path)
    return path


def test_a_folder_is_loaded_under_its_name(llama, folder):
    lm = sh.load(str(folder), device="cpu")
    assert lm.spec == sh.ModelSpec("tiny-one", str(folder), "local")
    assert torch.equal(lm(["The dog"]).logits, llama(["The dog"]).logits)
    assert lm.token_ids(["The dog", "狗"]) == llama.token_ids(["The dog", "狗"])


def test_a_folder_is_found_from_where_one_stands(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert sh.load("tiny-one").spec.name == "tiny-one"
    monkeypatch.chdir(folder)
    assert sh.load(".").spec.name == "tiny-one"


def test_weights_of_another_type_are_float32_on_a_cpu(llama_copy, tmp_path):
    llama_copy.model.to(torch.bfloat16).save_pretrained(tmp_path)
    llama_copy.tokenizer.save_pretrained(tmp_path)
    assert next(sh.load(str(tmp_path)).model.parameters()).dtype == torch.float32


def test_a_hub_id_is_passed_to_transformers_with_its_revision(llama, monkeypatch):
    calls = []

    def weights(source, **kwargs):
        calls.append((source, kwargs["revision"]))
        return llama.model

    def tokenizer(source, **kwargs):
        calls.append((source, kwargs["revision"]))
        return llama.tokenizer

    def config(source, **kwargs):
        calls.append((source, kwargs["revision"]))
        return llama.model.config

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", weights)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", tokenizer)
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", config)
    monkeypatch.setattr(download, "expected", lambda *_: download.Download(1, 1, 0))
    monkeypatch.setattr(download, "commit_of", lambda *_: "abc123")
    monkeypatch.setattr(baichuan, "config_of", lambda *_, **__: None)
    monkeypatch.setattr(baichuan, "native", lambda source, **_: source)
    assert sh.load("org/thing", revision="v2").spec == sh.ModelSpec("thing", "org/thing", "abc123")
    assert calls == [("org/thing", "v2")] * 3
    calls.clear()
    spec = sh.load("bloom-560m").spec
    assert (spec.name, spec.licence, spec.revision) == ("bloom-560m", "BLOOM RAIL 1.0", "abc123")
    assert calls == [("bigscience/bloom-560m", sh.REGISTRY["bloom-560m"].revision)] * 3


def test_an_unknown_name_is_named_with_the_nearest_ones_and_what_else_may_be_given():
    with pytest.raises(ValueError, match="no model is called 'lama-3-8b'") as error:
        sh.load("lama-3-8b")
    message = str(error.value)
    assert "nearest: 'llama-3-8b'" in message
    assert all(name in message for name in sh.REGISTRY)
    assert "'org/name'" in message


@pytest.mark.parametrize(
    ("wrong", "near"), [("gemma3-270m", "gemma-3-270m"), ("Qwen2.5-7B", "qwen2.5-7b"), ("BLOOM", "bloom-")]
)
def test_nearby_names_are_found_whatever_their_case(wrong, near):
    with pytest.raises(ValueError, match=rf"nearest: .*{near}"):
        sh.load(wrong)


def test_a_name_like_no_other_says_so():
    with pytest.raises(ValueError, match=r"no model is called '@@@'.*nothing in the book is near it"):
        sh.load("@@@")


@settings(deadline=None, max_examples=30)
@given(st.text(min_size=1, max_size=12).filter(lambda t: "/" not in t and "\0" not in t and t.strip(". ")))
def test_any_other_name_is_an_error_that_repeats_it(name):
    if name in sh.REGISTRY:
        return
    with pytest.raises(ValueError, match="no model is called") as error:
        sh.load(name)
    assert repr(name) in str(error.value)


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # A wait between attempts would make the reader wait for nothing.
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("load() waits for a hub that is off"))


@pytest.mark.parametrize("model", ["no-such-org/no-such-model", "llama-3-8b", "Qwen/Qwen2.5-0.5B"])
def test_a_hub_that_cannot_be_reached_ends_with_the_next_step(offline, model):
    with pytest.raises(OSError, match="it is not whole on this disk, and HF_HUB_OFFLINE is set") as error:
        sh.load(model)
    message = str(error.value)
    source = sh.REGISTRY[model].source if model in sh.REGISTRY else model
    assert repr(source) in message
    assert "hf auth login" in message
    assert "sh.load(), needs no hub" in message


def test_a_hub_id_near_a_name_of_the_book_says_which(offline):
    with pytest.raises(OSError, match="nearest: 'llama-3-8b'"):
        sh.load("meta-llama/llama-3-8")


def test_a_folder_without_a_model_ends_with_the_next_step(tmp_path):
    with pytest.raises(OSError, match=r"could not be loaded from the hub or from disk") as error:
        sh.load(str(tmp_path))
    assert repr(str(tmp_path)) in str(error.value)


@pytest.mark.parametrize("model", ["./nothing", "/nowhere/at/all", "~/nothing"])
def test_a_path_that_is_not_there_is_no_hub_id(model):
    with pytest.raises(ValueError, match="no folder has that name") as error:
        sh.load(model)
    assert repr(model) in str(error.value)


def test_a_gpu_that_is_not_there_is_an_error_with_the_way_out(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in ("cuda", "cuda:1"):
        with pytest.raises(RuntimeError, match=rf"device='{device}' needs a CUDA GPU and torch sees none") as error:
            sh.load(device=device)
        assert "leave it out to run on the CPU" in str(error.value)
        assert "Runtime > Change runtime type > GPU" in str(error.value)


def test_quantizing_needs_a_package(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == "bitsandbytes" else found(n, *a))
    with pytest.raises(RuntimeError, match="quantize='8bit' needs the package bitsandbytes: run `pip install"):
        sh.load(quantize="8bit")


def test_an_unknown_quantize_is_named():
    for quantize in ("2bit", "", "4BIT"):
        with pytest.raises(ValueError, match=rf"quantize is '{quantize}': give '4bit', '8bit' or None"):
            sh.load(quantize=quantize)


def test_the_embedded_model_has_one_revision():
    with pytest.raises(ValueError, match="revision is 'v2': gemma-3-270m has one"):
        sh.load(revision="v2")


def test_a_wrong_call_is_told_before_anything_is_loaded(monkeypatch):
    monkeypatch.setattr(embedded, "path", lambda: pytest.fail("the model was loaded first"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for wrong in ({"quantize": "2bit"}, {"device": "gpu"}, {"device": "cuda"}, {"revision": "v2"}, {"model": "x"}):
        with pytest.raises((ValueError, RuntimeError)):
            sh.load(**wrong)


@pytest.mark.parametrize(
    ("device", "quantize", "dtype", "device_map"),
    [
        ("cpu", None, torch.float32, None),
        ("cpu", "4bit", torch.float32, "cpu"),
        ("auto", None, torch.bfloat16, "auto"),
        ("auto", "4bit", torch.bfloat16, "auto"),
    ],
)
def test_what_transformers_is_asked_for(llama, monkeypatch, device, quantize, dtype, device_map):
    asked = {}
    version = importlib.metadata.version  # before transformers 5 the settings alone ask for that of bitsandbytes
    monkeypatch.setattr(importlib.metadata, "version", lambda n: "0.45.0" if n == "bitsandbytes" else version(n))

    def from_pretrained(source, **kwargs):
        asked.update(kwargs, source=source)
        return llama.model

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", from_pretrained)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (8, 0))
    loading._weights("org/name", device, quantize, revision="v1")
    assert (asked["source"], asked["revision"]) == ("org/name", "v1")
    assert (asked["dtype"], asked["device_map"]) == (dtype, device_map)
    assert (asked["quantization_config"] is not None) == (quantize is not None)
    if quantize:
        assert asked["quantization_config"].load_in_4bit
        assert asked["quantization_config"].bnb_4bit_quant_type == "nf4"
        assert asked["quantization_config"].bnb_4bit_compute_dtype == dtype
    assert not asked.get("trust_remote_code")


def test_loading_never_runs_the_packages_code(embedded_folder, monkeypatch):
    real = builtins.__import__

    def watch(name, *args, **kwargs):
        assert "q4_k_m" not in name, "the third party's package was imported"
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", watch)
    assert len(embedded.chunks()) == 4


LOADS = """
lm = sh.load(sys.argv[1], device="cpu", quantize=json.loads(sys.argv[2]))
gc.collect()
print("MB", most[0] - anonymous(), lm.model.get_memory_footprint() / 2**20)
"""


@pytest.fixture(scope="module")
def heavy(llama, tmp_path_factory):
    """A model of 400 MB in bfloat16 in one file, as safetensors and as torch saves it."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 10, "num_attention_heads": 8}
    config = transformers.LlamaConfig(vocab_size=len(llama.tokenizer), **sizes, dtype="bfloat16")
    model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    folders = {ending: tmp_path_factory.mktemp("heavy") / ending for ending in ("safetensors", "bin")}
    model.save_pretrained(folders["safetensors"], max_shard_size="10GB")
    model.config.save_pretrained(folders["bin"])
    torch.save(model.state_dict(), folders["bin"] / "pytorch_model.bin")
    for folder in folders.values():
        llama.tokenizer.save_pretrained(folder)
    assert (folders["safetensors"] / "model.safetensors").stat().st_size > 300 * 2**20
    return folders


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    ("ending", "quantize"), [("safetensors", None), ("bin", None), ("safetensors", "4bit"), ("bin", "8bit")]
)
def test_a_load_holds_no_more_in_memory_than_the_model_and_a_few_of_its_parts(heavy, ending, quantize):
    pytest.importorskip("bitsandbytes")
    imports = "import gc, json, bitsandbytes, torch, semhub_utils as sh"
    more, model = memory.watched(imports, LOADS, str(heavy[ending]), json.dumps(quantize), seconds=300)
    assert more < 150, f"the file of 330 MB was held as a whole: {more} MB more than what stays"
    assert model == pytest.approx({None: 660, "8bit": 166, "4bit": 100}[quantize], rel=0.2)


def test_a_file_that_would_run_code_when_it_is_read_is_refused(heavy, tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "run"), "w"))

    folder = tmp_path / "trap"
    shutil.copytree(heavy["bin"], folder, ignore=shutil.ignore_patterns("*.bin"))
    torch.save({"model.norm.weight": Trap()}, folder / "pytorch_model.bin")
    with pytest.raises(OSError, match="which could run code when it is read, so it is not: take a version"):
        sh.load(str(folder), device="cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("quantize", "near"), [("8bit", 0.05), ("4bit", 0.4)])
def test_a_model_rounded_on_a_cpu_reads_nearly_as_the_whole_one_and_its_lens_is_its_own(embedded_lm, quantize, near):
    pytest.importorskip("bitsandbytes")
    lm = sh.load(quantize=quantize, device="cpu")
    assert lm.model.get_memory_footprint() < 0.8 * embedded_lm.model.get_memory_footprint()
    text = "The capital of France is"
    logits, whole = (one(text).logits[0, -1].double().log_softmax(-1) for one in (lm, embedded_lm))
    # The divergence of what comes next, in nats: rounding is seen, and small.
    assert 1e-6 < float((whole.exp() * (whole - logits)).sum()) < near
    frame = sh.logit_lens(lm, text, {"a": 506, "b": 9079}, norm="final")
    last = frame[frame.layer == lm.n_layers]
    np.testing.assert_allclose(last.logprob, logits[[506, 9079]], atol=2e-3 * float(logits.abs().max()))


@pytest.mark.skipif(transformers.__version__ < "5", reason="transformers 4 puts no weights of this format on the disk")
def test_weights_that_go_to_the_disk_have_a_folder_that_goes_with_the_model(llama_copy, tmp_path, monkeypatch):
    llama_copy.model.config.save_pretrained(tmp_path / "model")
    # Of this format every weight is written anew, which transformers refuses without a folder.
    torch.save(llama_copy.model.state_dict(), tmp_path / "model" / "pytorch_model.bin")
    monkeypatch.setenv("SEMHUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hardware, "precision", lambda *_: torch.float32)
    real = transformers.AutoModelForCausalLM.from_pretrained
    short = {"cpu": 100_000}  # bytes: half of it, as where neither GPUs nor host have room
    monkeypatch.setattr(
        transformers.AutoModelForCausalLM, "from_pretrained", lambda *a, **k: real(*a, max_memory=short, **k)
    )
    model = loading._weights(str(tmp_path / "model"), "auto", None)
    assert "disk" in model.hf_device_map.values()
    (folder,) = (tmp_path / "cache" / "offload").iterdir()
    assert any(folder.iterdir())
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert torch.allclose(model(ids).logits, llama_copy.model(ids).logits, atol=1e-5)
    del model
    gc.collect()
    assert not folder.exists()
