"""What the explorers of a page need from Vega: its script, and a still picture of each chart."""

import html
import json
import re
import shutil
from importlib.metadata import version
from pathlib import Path

import vl_convert

from semhub_utils import cache

# How wide a still picture is drawn, in pixels: the column of text on a desktop.
_WIDTH = 640
# An explorer with a chart, as `semhub_utils.page` writes it.
_CHART = re.compile(
    r'<figure class="semhub-explorer" id="(?P<id>[^"]+)">.*<div class="semhub-chart"></div>.*'
    r'<script type="application/json">(?P<spec>.*?)</script>',
    re.DOTALL,
)


def write_script(path: Path, kept: Path) -> None:
    """Write the script to a path; it takes seconds to make, so a copy for this version is kept in a folder."""
    copy = kept / f"vega-{version('vl-convert-python')}.js"
    if not copy.is_file():
        cache.write_text(copy, script())
    shutil.copy(copy, path)


def script() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that sets `vegaEmbed` and leaves nothing else behind.

    The bundle looks for module loaders, and an anonymous module throws where require.js is on the page: so it is given
    none. As a plain script it also runs from a page that is opened as a file.
    """
    bundle = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its default sets `vegaEmbed`
    return f"(function (define, module, exports) {{\n{bundle}\n}})();\n"


def with_pictures(page: str, folder: Path, root: str) -> str:
    """An output's HTML with a still picture in each chart, for print and for readers without scripts.

    Args:
        page: the HTML of an output; what is no explorer is returned as it is.
        folder: where the pictures are written, as SVG.
        root: where that folder is from the page, such as "../_static/explorers".
    """
    if not (found := _CHART.search(page)):
        return page
    spec = json.loads(found["spec"])
    path = folder / f"{found['id']}.svg"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(picture(spec), encoding="utf-8")
    image = f'<img src="{root}/{path.name}" alt="{html.escape(spec["description"])}">'
    return page.replace('<div class="semhub-chart"></div>', f'<div class="semhub-chart">{image}</div>')


def picture(spec: dict) -> str:
    """A Vega-Lite chart in its first state, as SVG."""
    schema = re.search(r"/v(\d+\.\d+)", spec["$schema"])
    drawn = vl_convert.vegalite_to_svg(spec | {"width": _WIDTH}, vl_version=schema[1] if schema else None)
    # Vega counts these names through all pictures of a process; a picture must not depend on those before it.
    names = list(dict.fromkeys(re.findall(r'id="((?:gradient_|clip)\d+)"', drawn)))
    return re.sub(r"\b(?:gradient_|clip)\d+\b", lambda name: f"part-{names.index(name[0])}", drawn) if names else drawn
