"""One cache for what is slow to make: converted models, sweeps, executed chapters.

An entry is a folder named by a key over everything that could change it. It is made under another name and
renamed when complete, so a reader sees a whole entry or none, also after a kill or with two makers at once.
"""

import glob
import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import platformdirs
import psutil
from filelock import FileLock


def root() -> Path:
    """The cache folder: `$SEMHUB_CACHE`, or the user's cache folder for `semantic-hub`."""
    return Path(os.environ.get("SEMHUB_CACHE") or platformdirs.user_cache_path("semantic-hub"))


def key(inputs: object, code: Iterable[Path] = (), model: str = "") -> str:
    """The key of a result: 16 hex digits over its inputs, the files that make it and the model's hash.

    Args:
        inputs: anything that `json.dumps` takes; the order of a dict does not matter.
        code: files whose bytes (notebook, module, data, constraints) decide the result.
        model: the hash or revision of the model's weights.
    """
    files = [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in sorted(code)]
    text = json.dumps([inputs, files, model], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def folder(kind: str, key: str, make: Callable[[Path], None]) -> Path:
    """The folder `kind/key` of the cache, made by `make(empty_folder)` if it is not there yet.

    A second process that asks at the same time waits for the first. What a killed maker left is removed by the
    next one. If `make` raises, nothing stays behind.
    """
    final = root() / kind / key
    if final.is_dir():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{final}.lock"):
        if final.is_dir():
            return final
        for stale in final.parent.glob(f"{key}.partial-*"):
            shutil.rmtree(stale)
        partial = Path(tempfile.mkdtemp(prefix=f"{key}.partial-", dir=final.parent))
        try:
            make(partial)
            for file in partial.rglob("*"):
                _flush(file)
            os.chmod(partial, 0o755)  # mkdtemp's is for its maker alone, and a class may share one cache
            os.replace(partial, final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return final


def scratch(kind: str) -> Path:
    """An empty folder in the cache for this process; what killed processes of this machine left there is removed.

    Whoever asks removes it when it is done with it.
    """
    (root() / kind).mkdir(parents=True, exist_ok=True)
    host = platform.node()
    for left in (root() / kind).glob(f"{glob.escape(host)}-*-*"):
        if not psutil.pid_exists(int(left.name.removeprefix(f"{host}-").split("-")[0])):
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{host}-{os.getpid()}-", dir=root() / kind))


def write_text(path: Path, text: str) -> None:
    """Write a text file as `write_bytes` does."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file aside and rename it, so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("wb", dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
        try:
            file.write(data)
        except BaseException:
            os.unlink(file.name)
            raise
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def _flush(path: Path) -> None:
    # Without this a power cut after the rename could leave a complete name on incomplete bytes.
    if path.is_file():
        os.chmod(path, 0o644)
        with path.open("r+b") as file:
            os.fsync(file.fileno())
