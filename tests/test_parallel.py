"""Two processes on this machine's CPU, as torchrun starts them on GPUs: what they give is what one gives."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import transformers

import processes
import seeing
import semhub_utils as sh
from conftest import build, make_tokenizer
from semhub_utils import hardware, parallel
from semhub_utils.states import batches

SHARED = ["llama", "qwen2", "gemma3", "cohere", "llava"]
NO_PLAN = ["bloom", "gpt2"]


def run(what, folder, out, timeout=120):
    """Start two processes, on the loopback interface alone, and wait until they have ended."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [processes.__file__, what, str(folder), str(out)]
    near = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    return subprocess.run(
        command, env=os.environ | near | {"PYTHONPATH": path}, timeout=timeout, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    for name in [*SHARED, *NO_PLAN]:
        if name == "llava":
            made = seeing.tiny_llava(make_tokenizer)
        else:
            lm = build(name)
            made = (lm.model, lm.tokenizer)
        for part in made:
            part.save_pretrained(root / ("shared" if name in SHARED else "whole") / name)
    return root


@pytest.fixture(scope="module")
def found(folders, tmp_path_factory):
    """What two processes found that share each model's weights."""
    out = tmp_path_factory.mktemp("out")
    done = run("shared", folders / "shared", out)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


@pytest.mark.parametrize("name", SHARED)
def test_every_call_on_shared_weights_gives_what_it_gives_on_the_whole_model(folders, found, name):
    plain = sh.load(str(folders / "shared" / name))
    expected = processes.everything(plain)
    count = sum(p.numel() for p in plain.model.parameters())
    for rank in range(2):
        got = torch.load(found / f"{name}-{rank}.pt", weights_only=False)
        assert torch.equal(got.pop("rows"), torch.arange(14.0).view(7, 2))
        # transformers 5 shares the matrices of the vocabulary too.
        most = 0.75 if int(transformers.__version__[0]) >= 5 else 0.99
        assert got.pop("numbers held") < most * count, "the weights are not shared"
        assert got.keys() == expected.keys()
        for what, value in expected.items():
            same(got[what], value, f"{what} of process {rank}")


def same(got, expected, what):
    """Within 1e-5 of the scale of what is expected; texts and ranks are the same."""
    if isinstance(expected, torch.Tensor):
        assert torch.isfinite(expected).any(), what
        finite = torch.where(torch.isfinite(expected), expected, 0)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=float(1e-5 * finite.abs().max()), msg=what)
    elif isinstance(expected, pd.DataFrame):
        pd.testing.assert_frame_equal(got, expected, rtol=1e-5, atol=1e-4, obj=what)
    else:
        assert got == expected, what


def test_a_sweep_over_shared_weights_is_kept_by_the_first_process_alone(found):
    assert sorted(path.name for path in found.glob("*.jsonl*")) == sorted(f"{name}.jsonl" for name in SHARED)


@pytest.fixture(scope="module")
def divided(folders, tmp_path_factory):
    """What two processes found that divide sweeps, until one of them was killed."""
    out = tmp_path_factory.mktemp("out")
    done = run("divided", folders / "whole" / "bloom", out)
    assert done.returncode != 0
    assert "SIGKILL" in done.stderr, done.stderr[-3000:]
    return out, done.stdout


@pytest.fixture(scope="module")
def alone(folders):
    """The model, and what one process gives, with the number of batches that it continued."""
    lm = sh.load(str(folders / "whole" / "bloom"))
    return lm, *processes.counted(lambda: processes.sweep(lm))


def test_a_sweep_divided_among_processes_is_the_same_to_the_bit_and_a_failure_stops_them_all(divided, alone):
    (lm, whole, count), (out, said) = alone, divided
    got = [torch.load(out / f"divided-{rank}.pt", weights_only=False) for rank in range(2)]
    for one in got:
        pd.testing.assert_frame_equal(one["frame"], whole, check_exact=True)
        assert one["different"].startswith("ValueError: the 2 processes ask for different sweeps")
    assert [one["batches"] for one in got] == [count // 2] * 2
    assert got[1]["failed"] == "OSError: the second process has no more"
    assert got[0]["failed"] == "RuntimeError: process 1 of 2 failed: OSError('the second process has no more')"
    assert "Process 1 of 2 failed: OSError" in said
    # What both wrote is taken up by one.
    assert {path.name for path in out.glob("whole*")} == {"whole.jsonl", "whole.jsonl.1"}
    again, count = processes.counted(lambda: processes.sweep(lm, out / "whole.jsonl"))
    pd.testing.assert_frame_equal(again, whole, check_exact=True)
    assert count == 0


def test_a_sweep_whose_processes_were_killed_is_taken_up_by_one(divided, alone):
    (lm, whole, count), (out, _) = alone, divided
    files = [out / "killed.jsonl", out / "killed.jsonl.1"]
    with files[1].open("a", encoding="utf-8") as half:
        half.write('{"part": "text 3 1 3", "rows": [{"vec')  # killed while it wrote
    kept = sum(text.count('"text ') for text in (file.read_text(encoding="utf-8") for file in files)) - 1
    assert kept == 4
    resumed, left = processes.counted(lambda: processes.sweep(lm, files[0]))
    pd.testing.assert_frame_equal(resumed, whole, check_exact=True)
    assert left == count - kept
    other = out / "killed.jsonl.7"
    other.write_text('{"key": "of another"}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"killed\.jsonl\.7 holds another sweep than this one"):
        processes.sweep(lm, files[0])


@pytest.fixture
def one_of_two(monkeypatch):
    """As torchrun starts the first of two processes; nothing is started yet."""
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize("name", NO_PLAN)
def test_a_family_without_a_plan_is_named_before_any_weight_is_read(folders, one_of_two, name, monkeypatch):
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(ValueError, match=f"{name} \\({name}\\) has no plan for tensor parallelism") as error:
        sh.load(str(folders / "whole" / name), tensor_parallel=True)
    assert f"transformers {transformers.__version__}" in str(error.value)
    assert "leave tensor_parallel out, and without torchrun its blocks are spread over the GPUs" in str(error.value)


def test_heads_that_do_not_divide_are_named_with_what_does(folders, one_of_two, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    said = "llama has 4 heads of queries and 2 of keys and values, which 3 processes cannot share evenly: start 1, 2,"
    with pytest.raises(ValueError, match=said):
        sh.load(str(folders / "shared" / "llama"), tensor_parallel=True)


def test_the_embedded_model_has_one_head_of_keys_which_cannot_be_shared(one_of_two):
    with pytest.raises(ValueError, match="gemma-3-270m has 4 heads of queries and 1 of keys and values, which 2 proc"):
        sh.load(tensor_parallel=True)


def test_without_torchrun_the_command_is_given(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(RuntimeError, match=r"start it with `torchrun --nproc-per-node 2 run\.py`"):
        sh.load("llama-3-8b", tensor_parallel=True)


def test_what_does_not_go_with_shared_weights_is_refused(one_of_two):
    with pytest.raises(ValueError, match="quantize='4bit' does not go with tensor_parallel=True"):
        sh.load("llama-3-8b", quantize="4bit", tensor_parallel=True)
    with pytest.raises(ValueError, match="device is 'cuda:1': with tensor_parallel=True every process takes the GPU"):
        sh.load("llama-3-8b", device="cuda:1", tensor_parallel=True)


def test_each_process_has_the_gpu_of_its_number(one_of_two, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert hardware.checked_device(None) == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert hardware.checked_device(None) == "cuda:1"
    assert parallel.tensor_parallel_device(None, None) == "cuda:1"
    with pytest.raises(ValueError, match="CUDA_VISIBLE_DEVICES"):
        parallel.tensor_parallel_device("cpu", None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(RuntimeError, match="torch sees 1 GPU"):
        hardware.checked_device(None)
    monkeypatch.delenv("WORLD_SIZE")
    assert hardware.checked_device(None) == "auto"


def test_a_bar_is_shown_by_the_first_process_alone(one_of_two, monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    assert not isinstance(batches([[1]], 1, progress=True), list)
    monkeypatch.setenv("RANK", "1")
    assert batches([[1]], 1, progress=True) == [[0]]
