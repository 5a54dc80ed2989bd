"""The address that the built site is published at."""

import os
from urllib.parse import urlparse

from address import address

_PAGES = {"github.com": "github.io", "gitlab.com": "gitlab.io"}


def site() -> str | None:
    """The address of the site, ending in a slash; None while nobody has set one.

    The environment variable SEMHUB_SITE wins. Else it follows from the address of the repository, which stands in
    _config.yml: the pages of github.com/OWNER/NAME are at OWNER.github.io/NAME/, and GitLab's alike.

    Raises:
        ValueError: for a SEMHUB_SITE that is no web address.
    """
    if given := os.environ.get("SEMHUB_SITE"):
        parts = urlparse(given)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError(f"SEMHUB_SITE is {given!r}: give a whole address, such as https://example.org/book/")
        return given.rstrip("/") + "/"
    parts = urlparse(address() or "")
    owner, _, name = parts.path.strip("/").removesuffix(".git").partition("/")
    if parts.netloc not in _PAGES or not name:
        return None
    host = f"{owner.lower()}.{_PAGES[parts.netloc]}"
    return f"https://{host}/" if name.lower() == host else f"https://{host}/{name}/"
