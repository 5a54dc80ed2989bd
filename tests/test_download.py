"""Loading from a hub, tried against one on this machine that speaks its protocol: whole, broken off, gated, missing."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
import transformers

import semhub_utils as sh
from semhub_utils import download

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LOAD = """
import json, sys
import semhub_utils as sh
for args, kwargs in json.load(sys.stdin):
    try:
        lm = sh.load(*args, **kwargs, device="cpu")
        print("LOGITS", float(lm("The dog").logits.double().sum()), lm.spec.revision)
    except Exception as error:
        print("ERROR", type(error).__name__, error)
    print("NEXT")
"""


class Hub(ThreadingHTTPServer):
    """One model, `org/tiny`, at one commit; `org/gated` asks for consent; nothing else is there."""

    def __init__(self, folder):
        self.folder, self.asked, self.cuts = folder, [], []
        super().__init__(("127.0.0.1", 0), Answer)
        self.address = f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        path = self.path.split("?")[0]
        self.server.asked.append((self.command, path, self.headers.get("Range")))
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self.describe("/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main", parts[4:])
        elif len(parts) >= 5 and parts[2] == "resolve":
            self.file("/".join(parts[:2]), parts[3], "/".join(parts[4:]), body)
        else:
            self.say(404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})

    def refused(self, repo, revision):
        if repo == "org/gated":
            self.say(403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model org/gated is restricted"})
        elif repo != "org/tiny":
            self.say(401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif revision not in ("main", COMMIT):
            self.say(404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})
        else:
            return False
        return True

    def describe(self, repo, revision, rest):
        if self.refused("org/tiny" if repo == "org/gated" else repo, revision):
            return
        files = sorted(self.server.folder.iterdir())
        if rest[:1] == ["tree"]:
            entries = [{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": blob(f)} for f in files]
            self.say(200, {"Content-Type": "application/json"}, json.dumps(entries).encode())
            return
        about = {
            "id": repo,
            "modelId": repo,
            "sha": COMMIT,
            "siblings": [{"rfilename": f.name, "size": f.stat().st_size, "blobId": blob(f)} for f in files],
        }
        self.say(200, {"Content-Type": "application/json"}, json.dumps(about).encode())

    def file(self, repo, revision, name, body):
        if self.refused(repo, revision):
            return
        path = self.server.folder / name
        if not path.is_file():
            self.say(
                404, {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found", "X-Repo-Commit": COMMIT}
            )
            return
        data = path.read_bytes()
        headers = {"ETag": f'"{blob(path)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        start = int((self.headers.get("Range") or "bytes=0-").split("=")[1].split("-")[0])
        code = 206 if self.headers.get("Range") else 200
        if code == 206:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        cut = body and name.endswith(".safetensors") and self.server.cuts
        self.say(code, headers, data[start:], body, self.server.cuts.pop() if cut else None)

    def say(self, code, headers, data=b"", body=True, cut=None):
        self.send_response(code)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body and self.command != "HEAD":
            self.wfile.write(data[:cut])
            if cut is not None:
                self.close_connection = True

    def log_message(self, *_):
        pass


def blob(path):
    return hashlib.sha1(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def model(llama):
    """Of more than one of the parts that a download comes in."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = transformers.LlamaConfig(vocab_size=len(llama.tokenizer), **sizes)
    return sh.LanguageModel(transformers.LlamaForCausalLM(config), llama.tokenizer, llama.spec)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("hub") / "tiny"
    model.model.save_pretrained(path)
    model.tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def hub(folder):
    server = Hub(folder)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(10)


def loads(address, home, *calls):
    """What a process that knows this hub and no other prints at each of its loads."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    environment |= {
        "HF_ENDPOINT": address,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DOWNLOAD_TIMEOUT": "5",
        "HF_HUB_ETAG_TIMEOUT": "5",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-c", LOAD],
        input=json.dumps(calls),
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    said = done.stdout.split("NEXT\n")[:-1]
    assert len(said) == len(calls), done.stderr
    return said


def test_a_model_comes_from_the_hub_once_and_one_that_broke_off_goes_on(hub, folder, model, tmp_path):
    size = (folder / "model.safetensors").stat().st_size
    hub.cuts = [25_000_000]
    plain = ["org/tiny"], {}
    said = loads(hub.address, tmp_path, plain, plain, plain)
    whole = [one for one in said if "LOGITS" in one]
    assert f"Downloading tiny (org/tiny, licence: see its model card): {size / 1e9:.1f} GB in 1 files, to " in said[0]
    assert "A download that is stopped goes on where it was." in said[0]
    assert "Downloading" not in said[-1]
    for one in whole:
        total, revision = one.split("LOGITS ")[1].split()
        assert float(total) == pytest.approx(float(model("The dog").logits.double().sum()), rel=1e-6)
        assert revision == COMMIT
    assert hub.cuts == [], "the trap of this test is not set"
    asked = [wanted for way, path, wanted in hub.asked if way == "GET" and path.endswith(".safetensors")]
    assert len(asked) == 2, "it was downloaded again"
    assert int(asked[1].split("=")[1].split("-")[0]) >= 10_000_000, "it began again"


def test_what_the_hub_refuses_is_said_with_the_next_step(hub, tmp_path):
    calls = (["org/gated"], {}), (["org/llama-3-8"], {}), (["org/tiny"], {"revision": "v9"})
    gated, missing, revision = loads(hub.address, tmp_path, *calls)
    assert "'org/gated' is gated" in gated
    assert f"open {hub.address}/org/gated while logged in" in gated
    assert "hf auth login" in gated
    assert "'org/llama-3-8' is not on the hub, or is private (nearest: 'llama-3-8b'" in missing
    assert "'org/tiny' has no revision 'v9': give revision='main' for the newest" in revision


def test_a_hub_that_is_away_is_said_with_the_next_step(tmp_path):
    (away,) = loads("http://127.0.0.1:9", tmp_path, (["org/tiny"], {}))
    assert "'org/tiny' could not be loaded: it is not whole on this disk, and the hub could not be reached" in away


def test_a_disk_that_is_too_small_is_said_before_the_download(hub, monkeypatch, capsys):
    plan = download.Download(3, 16_100_000_000, 9_000_000_000)
    spec = sh.REGISTRY["llama-3-8b"]
    usage = type(shutil.disk_usage("/"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(20 * 10**9, 11 * 10**9, 9 * 10**9))
    with pytest.raises(OSError, match=r"llama-3-8b needs 9\.0 GB on the disk of .* which has 9\.0 GB free") as error:
        download.announce(spec, plan)
    assert "HF_HOME" in str(download.explained(error.value, spec, "main", ""))
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(20 * 10**9, 10 * 10**9, 10 * 10**9))
    download.announce(spec, plan)
    assert (
        "Downloading llama-3-8b (meta-llama/Meta-Llama-3-8B, licence: Llama 3 (gated)): 9.0 GB"
        in capsys.readouterr().out
    )
    download.announce(spec, download.Download(3, 16_100_000_000, 0))
    assert capsys.readouterr().out == ""


def test_a_disk_that_fills_up_is_said(llama):
    error = OSError("could not load")
    error.__cause__ = OSError(28, "No space left on device")
    said = str(download.explained(error, sh.REGISTRY["bloom-560m"], "main", ""))
    assert "bloom-560m could not be kept: the disk of " in said
    assert "load again: what has arrived is kept" in said


def test_the_weights_are_safetensors_if_there_are_any_and_those_at_the_top(tmp_path):
    for name, size in (("a.bin", 5), ("b.bin", 7)):
        (tmp_path / name).write_bytes(b"0" * size)
    (tmp_path / "original").mkdir()
    (tmp_path / "original" / "c.safetensors").write_bytes(b"0" * 100)
    assert download.in_folder(tmp_path) == download.Download(2, 12, 0)
    (tmp_path / "d.safetensors").write_bytes(b"0" * 3)
    assert download.in_folder(tmp_path) == download.Download(1, 3, 0)


def test_a_folder_too_large_for_the_memory_is_refused_by_the_size_of_its_files(folder, monkeypatch):
    monkeypatch.setattr(download, "in_folder", lambda _: download.Download(1, 4 * 10**12, 0))
    with pytest.raises(RuntimeError, match=r"tiny in float32 needs 4001\.0 GB of the memory of the host"):
        sh.load(str(folder), device="cpu")
