"""What every reader of a file asks first."""

from pathlib import Path


def check_file(path: Path, what: str) -> Path:
    """The path itself if a file with something in it is there; `what` it is to be, such as "a sound", is for the error.

    Raises:
        FileNotFoundError: if it is not there, or is a folder.
        ValueError: if it is empty.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there, or is no file: give the path of {what}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty: it is not {what}")
    return path
