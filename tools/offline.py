"""A Sphinx extension: pages that take nothing from another host, and that know the address they are published at."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ExtensionError

from base_url import site

CARD = "_static/card.png"
TOOLS = Path(__file__).resolve().parent
# What decides how a page looks, beside what the page is made of.
SOURCES = [TOOLS / name for name in ("base_url.py", "card.py", "equations.py", "offline.py")]
_CARD_TAGS = (
    '<meta property="og:image:width" content="1200" />',
    '<meta property="og:image:height" content="630" />',
    '<meta name="twitter:card" content="summary_large_image" />',
)


def _configure(_app: Sphinx, config: Config) -> None:
    where = site()
    config.html_baseurl = where or ""
    config.notfound_urls_prefix = urlparse(where).path if where else "/"
    config.ogp_site_url = where or ""
    config.ogp_site_name = config.html_title
    config.ogp_image = CARD
    config.ogp_image_alt = "A hub with words for cat in seven languages around it"
    # Without a mode of its own the theme writes an error to the console at a reader's first page.
    config.html_context.setdefault("default_mode", "auto")
    config.ogp_custom_meta_tags = _CARD_TAGS


def _tidy_tags(app: Sphinx, _page: str, _template: str, context: dict[str, Any], _doctree: object) -> None:
    tags = context.get("metatags", "")
    # A description is the first words of the page; a chapter begins with a list.
    tags = tags.replace('content="What you will learn ', 'content="What you will learn: ').replace(";,", ";")
    if not app.config.html_baseurl:
        # Without an address of the site these would be relative, and no reader of such tags can follow them.
        tags = re.sub(r'<meta property="og:(?:url|image[\w:]*)"[^>]*>\n?', "", tags)
    context["metatags"] = tags


def _remove_thebe(app: Sphinx, _config: Config) -> None:
    # Jupyter Book loads it always and has no switch. No page here uses it, and it fetches its code from elsewhere.
    ours = [one for listeners in app.events.listeners.values() for one in listeners if _is_thebe(one.handler)]
    styles = [entry for entry in app.registry.css_files if entry[0] == "sphinx-thebe.css"]
    if not ours or not styles:
        raise ExtensionError("tools/offline.py finds no sphinx-thebe to remove: see whether it is still needed")
    for listener in ours:
        app.disconnect(listener.id)
    app.registry.css_files.remove(*styles)


def _is_thebe(handler: Callable) -> bool:
    return handler.__module__.startswith("sphinx_thebe")


def environment() -> dict[str, str]:
    """The environment in which Sphinx finds the extensions of this folder."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(TOOLS), os.environ.get("PYTHONPATH")]))}


def setup(app: Sphinx) -> dict:
    """Connect to the build."""
    app.connect("config-inited", _configure)
    app.connect("config-inited", _remove_thebe)
    app.connect("html-page-context", _tidy_tags, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
