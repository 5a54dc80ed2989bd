"""What loading a model of the hub will download, said before it does, and what went wrong, said after.

The download itself is huggingface_hub's: it keeps what has arrived and goes on there when it is called again.
"""

import errno
import os
import pickle
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, constants, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from semhub_utils.registry import ModelSpec

_WEIGHTS = (".safetensors", ".bin")
_SPARE = 0.5  # GB that a download leaves free


@dataclass(frozen=True)
class Download:
    """The weights of one commit of a model on the hub, in bytes; `missing` is what is not on this disk yet."""

    files: int
    size: int
    missing: int


class Away(Exception):
    """A hub that is turned off or cannot be reached: what is on this disk is all there is."""


def expected(source: str, revision: str) -> Download:
    """What a load will download: the weights at the top of the repository, as safetensors if there are any.

    Raises:
        Away: at once, where the hub's client would try again and again for half a minute.
        HfHubHTTPError: what the hub answers, such as that it has no such model.
    """
    if constants.HF_HUB_OFFLINE or os.environ.get("TRANSFORMERS_OFFLINE") == "1":
        raise Away("HF_HUB_OFFLINE is set")
    try:
        info = HfApi().model_info(source, revision=revision, files_metadata=True, timeout=10)
    except HfHubHTTPError:
        raise
    except Exception as error:
        # The client raises those of the library under it, which is another one in another version.
        raise Away("the hub could not be reached") from error
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    weights = _weights(sizes)
    known = {name: try_to_load_from_cache(source, name, revision=info.sha) for name in weights}
    missing = [name for name in weights if not isinstance(known[name], str)]
    return Download(len(weights), sum(sizes[name] for name in weights), sum(sizes[name] for name in missing))


def in_folder(folder: str | Path) -> Download:
    """The weights of a folder; nothing of them is missing."""
    sizes = {path.name: path.stat().st_size for path in Path(folder).iterdir() if path.is_file()}
    weights = _weights(sizes)
    return Download(len(weights), sum(sizes[name] for name in weights), 0)


def _weights(names: Iterable[str]) -> list[str]:
    top = [name for name in names if "/" not in name]
    return next((found for end in _WEIGHTS if (found := [name for name in top if name.endswith(end)])), [])


def commit_of(source: str, revision: str) -> str:
    """The commit of which a model's files lie on this disk, or the revision itself."""
    found = try_to_load_from_cache(source, "config.json", revision=revision)
    return Path(found).parent.name if isinstance(found, str) else revision


def announce(spec: ModelSpec, plan: Download) -> None:
    """Say how much will be downloaded and where to, or that it does not fit on the disk.

    Raises:
        OSError: if the disk has less room than is missing, with how to name another.
    """
    if not plan.missing:
        return
    folder = Path(constants.HF_HUB_CACHE)
    standing = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    free = shutil.disk_usage(standing).free / 1e9
    needed = plan.missing / 1e9
    if needed + _SPARE > free:
        raise OSError(
            errno.ENOSPC,
            f"{spec.name} needs {needed:.1f} GB on the disk of {folder}, which has {free:.1f} GB free: make room, or "
            f"set the environment variable HF_HOME to a folder on a larger disk before Python starts",
        )
    print(
        f"Downloading {spec.name} ({spec.source}, licence: {spec.licence}): {needed:.1f} GB in {plan.files} files, to "
        f"{folder}, which has {free:.1f} GB free. A download that is stopped goes on where it was.",
        flush=True,
    )


def explained(error: BaseException, spec: ModelSpec, revision: str, nearest: str, away: Away | None = None) -> OSError:
    """The error of a load in words that name the model and the next step."""
    chain = list(_chain(error))
    page = f"{constants.ENDPOINT}/{spec.source}"
    embedded = "The embedded model, sh.load(), needs no hub."

    def met(*kinds: type[BaseException]) -> bool:
        return any(isinstance(one, kinds) for one in chain)

    full = next((one for one in chain if isinstance(one, OSError) and one.errno == errno.ENOSPC), None)
    if full is not None:
        if "HF_HOME" in str(full):
            return OSError(errno.ENOSPC, full.strerror)
        where = f"the disk of {constants.HF_HUB_CACHE} is full"
        return OSError(
            errno.ENOSPC,
            f"{spec.name} could not be kept: {where}. Make room, or set HF_HOME to a folder on a larger disk before "
            f"Python starts, and load again: what has arrived is kept",
        )
    if met(GatedRepoError):
        return OSError(
            f"{spec.source!r} is gated ({spec.licence}): open {page} while logged in, consent to the licence and wait "
            f"for the answer; then run `hf auth login` here, or in Colab add the token as the secret HF_TOKEN. "
            f"{embedded}"
        )
    if met(RevisionNotFoundError):
        return OSError(
            f"{spec.source!r} has no revision {revision!r}: give revision='main' for the newest; {page}/commits has all"
        )
    if met(RepositoryNotFoundError):
        return OSError(
            f"{spec.source!r} is not on the hub, or is private ({nearest}): check the id at {page}, and for a private "
            f"model run `hf auth login`. {embedded}"
        )
    if away is not None:
        return OSError(
            f"{spec.source!r} could not be loaded: it is not whole on this disk, and {away}. Check the network, or a "
            f"proxy, and load again: what has arrived is kept. Check the id too ({nearest}); a gated model also needs "
            f"`hf auth login`. {embedded}"
        )
    if met(pickle.UnpicklingError):
        return OSError(
            f"{spec.source!r} holds weights in Python's own format with more in it than numbers, which could run code "
            f"when it is read, so it is not: take a version of the model in safetensors"
        )
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return OSError(
        f"{spec.source!r} could not be loaded from the hub or from disk: {reason}\n"
        f"Check the id ({nearest}), the network, and for a gated model its licence page and `hf auth login`. {embedded}"
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it was raised from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
