"""Files of the data sets that no package brings: from the Hugging Face hub, or from a folder with a copy."""

from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError


def data_file(dataset: str, name: str, folder: str | Path | None, instead: str) -> Path:
    """The path of one file of a data set.

    Args:
        dataset: its id on the hub, such as "openlanguagedata/flores_plus".
        name: of the file in it.
        folder: where a copy of the data set lies; by default the hub.
        instead: what a reader without network can do, such as "`humaneval()` needs neither".

    Raises:
        FileNotFoundError: if the folder lacks the file.
        RuntimeError: if the hub cannot be reached or asks for a login, with what to do.
    """
    if folder is not None:
        path = Path(folder, name)
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not there: download {dataset} into {folder}, or leave `folder` out")
        return path
    try:
        return Path(huggingface_hub.hf_hub_download(dataset, name, repo_type="dataset"))
    except GatedRepoError as error:
        raise RuntimeError(
            f"{dataset} asks for a login: accept its conditions on its page and run `hf auth login`"
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise RuntimeError(
            f"{dataset} cannot be had from the hub ({type(error).__name__}): check the network, or give `folder` "
            f"with a copy; {instead}"
        ) from error
