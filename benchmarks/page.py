"""How heavy and how quick the built pages are, in headless Chromium on loopback: `make book`, then this.

Printed for each page: its weight without what all pages share, when its first words are painted, and for each of its
explorers how long a turn of a control takes until the browser has drawn it (the median of all choices of all controls).
"""

import statistics
import sys
from pathlib import Path
from urllib.parse import urlparse

from playwright.sync_api import Page, Response, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import build_book  # noqa: E402
import print_book  # noqa: E402

# Until the explorer says that it shows the new state, and a frame more: by then it has been drawn.
TURN = """async (control) => {
  const times = [];
  const figure = control.closest("figure");
  const list = control.tagName === "SELECT";
  const choices = list ? control.options.length : Number(control.max) + 1;
  for (let i = 0; i < choices; i++) {
    delete figure.dataset.state;
    const start = performance.now();
    if (list) control.selectedIndex = i;
    else control.value = i;
    control.dispatchEvent(new Event(list ? "change" : "input", { bubbles: true }));
    while (!figure.dataset.state) await new Promise((later) => setTimeout(later));
    await new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn)));
    times.push(performance.now() - start);
  }
  return times;
}"""
PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"


def measure(page: Page, address: str) -> tuple[dict[str, int], float, list[tuple[str, float, float]]]:
    """What a page loads by path in bytes, its first paint in ms, and for each explorer its median and longest turn."""
    responses: list[Response] = []
    page.on("response", lambda response: responses.append(response))  # playwright marks its listeners
    page.goto(address)
    page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length")
    turns = []
    for figure in page.query_selector_all("figure.semhub-explorer"):
        figure.scroll_into_view_if_needed()
        page.wait_for_function("figure => figure.dataset.drawn === 'yes'", arg=figure)
        page.wait_for_timeout(300)
        times = [t for control in figure.query_selector_all("select, input") for t in control.evaluate(TURN)]
        turns.append((figure.get_attribute("id") or "", statistics.median(times), max(times)))
    page.wait_for_load_state("networkidle")
    weights = {urlparse(response.url).path: len(response.body()) for response in responses}
    return weights, page.evaluate(PAINT), turns


def main() -> None:
    """Measure every page and print the table."""
    build_book.build()
    with print_book.served(build_book.HTML) as root, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=print_book.browser(), args=["--no-sandbox"])
        rows = [(name, *measure(browser.new_page(), f"{root}{name}.html")) for name in build_book.pages()]
    shared = set.intersection(*(set(weights) for _, weights, _, _ in rows)) | {"/_static/vega.js"}
    print(f"{'page':34} {'MB, its own':>12} {'first paint, ms':>16}  explorers: median and longest turn, ms")
    for name, weights, paint, turns in rows:
        own = sum(size for path, size in weights.items() if path not in shared) / 1e6
        text = ", ".join(f"{one.removeprefix('explore-')} {median:.0f}, {most:.0f}" for one, median, most in turns)
        print(f"{name:34} {own:12.2f} {paint:16.0f}  {text}")


if __name__ == "__main__":
    main()
