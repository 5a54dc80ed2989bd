"""Print the built book into one PDF, _build/semantic-hub.pdf, with a headless Chromium.

It has a title page with the contents, bookmarks by chapter, page numbers, and links that lead within it.
"""

import html
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urldefrag

import yaml
from pypdf import PdfReader, PdfWriter
from pypdf.generic import ArrayObject, DictionaryObject, NameObject

import build_book
import semhub_utils

PDF = build_book.BUILD / "semantic-hub.pdf"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
_MAC = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"


class PrintError(Exception):
    """The book cannot be printed here."""


def browser() -> str:
    """The program of a Chromium on this machine; the environment variable CHROMIUM names another.

    Raises:
        PrintError: when there is none.
    """
    for name in (os.environ.get("CHROMIUM"), *_NAMES, _MAC):
        if name and (found := shutil.which(name)):
            return found
    raise PrintError(
        "the book is printed by a Chromium or Chrome, and none is found: install one (on Debian and Ubuntu: "
        "apt install chromium), or name its program with CHROMIUM=/path/to/chrome"
    )


def print_page(address: str, path: Path) -> None:
    """Print one page into a PDF. Addresses outside this machine are not asked.

    Raises:
        PrintError: with what the browser said.
    """
    with tempfile.TemporaryDirectory() as profile:
        options = [
            "--headless=new",
            "--disable-gpu",
            "--no-pdf-header-footer",
            f"--user-data-dir={profile}",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            "--virtual-time-budget=20000",  # for the scripts that draw charts; a page without them does not wait
            f"--print-to-pdf={path}",
        ]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            options.append("--no-sandbox")  # as root, in a container, there is none
        done = subprocess.run([browser(), *options, address], capture_output=True, text=True, timeout=180)
    if done.returncode or not path.is_file():
        raise PrintError(f"{address} was not printed: {done.stderr.strip()[-500:]}")


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder to this machine alone; gives its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def merge(parts: list[tuple[str, str, Path]], address: str) -> PdfWriter:
    """One document out of the printed pages, with a bookmark for each and links that lead within.

    Args:
        parts: for each page its name, such as "reference/glossary", its title, and its PDF.
        address: where the pages were served from: what the links in them begin with.
    """
    book, starts, anchors = PdfWriter(), {}, {}
    for name, title, path in parts:
        reader, start = PdfReader(path), len(book.pages)
        starts[name] = start
        for anchor, place in reader.named_destinations.items():
            number = reader.get_destination_page_number(place)
            anchors[f"{name}.html", anchor.lstrip("/")] = (start + (number or 0), place.get("/Top", 0))
        book.append(reader, import_outline=False)
        book.add_outline_item(title=title, page_number=start)
    for number, page in enumerate(book.pages):
        name = max((start, name) for name, start in starts.items() if start <= number)[1]
        page[NameObject("/Annots")] = ArrayObject(
            link
            for link in page.get("/Annots", [])
            if _lead_within(link.get_object(), f"{name}.html", book, starts, anchors, address)
        )
    return book


def _lead_within(link: DictionaryObject, here: str, book: PdfWriter, starts: dict, anchors: dict, address: str) -> bool:
    """Turn a link to a page of the book into one to its place in the document; False for a link that leads nowhere."""
    uri = str(link.get("/A", {}).get("/URI", ""))
    if "/Dest" in link:
        target, anchor = here, str(link["/Dest"]).lstrip("/")
    elif uri.startswith(address):
        target, anchor = urldefrag(uri.removeprefix(address))
    else:
        return bool(uri)
    if target.removesuffix(".html") not in starts:
        return False
    number, top = anchors.get((target, anchor), (starts[target.removesuffix(".html")], None))
    link.pop("/A", None)
    fit = [NameObject("/Fit")] if top is None else [NameObject("/FitH"), top]
    link[NameObject("/Dest")] = ArrayObject([book.pages[number].indirect_reference, *fit])
    return True


def cover(parts: list[tuple[str, str, Path]], pages: list[int]) -> str:
    """The first page as HTML: the title, and the contents with page numbers."""
    rows = "".join(
        f"<tr><td>{html.escape(title)}</td><td>{page}</td></tr>"
        for (_, title, _), page in zip(parts, pages, strict=True)
    )
    return (
        f"<!DOCTYPE html><meta charset='utf-8'><style>{_PAPER} h1 {{ margin-top: 45mm; font-size: 30pt }} "
        "table { width: 100%; border-collapse: collapse; margin-top: 20mm } td { padding: 1.2mm 0; border-bottom: "
        "0.2mm solid #ccc } td + td { text-align: right }</style>"
        f"<h1>{html.escape(_title())}</h1><p>Version {semhub_utils.__version__}. Text: CC BY 4.0. Code: MIT.</p>"
        f"<p>The pages of the book as they were built. Folded code is left out; it is in the notebooks.</p>"
        f"<table>{rows}</table>"
    )


def numbers(count: int, titles: list[str]) -> str:
    """Sheets with a page number and the chapter's title at the foot, to lay over the pages, as HTML."""
    feet = "".join(
        f"<div><span>{html.escape(title)}</span><span>{number}</span></div>"
        for number, title in enumerate(titles, start=count + 1)
    )
    return (
        f"<!DOCTYPE html><meta charset='utf-8'><style>{_PAPER} @page {{ margin: 0 }} body {{ margin: 0 }} "
        "div { height: 285mm; padding: 0 18mm; display: flex; justify-content: space-between; align-items: flex-end; "
        "break-after: page; font-size: 8pt; color: #555 } div:last-child { break-after: auto }</style>" + feet
    )


_PAPER = "@page { size: A4; margin: 18mm } body { font-family: sans-serif; font-size: 11pt; color: #222 }"


def _title() -> str:
    return str(yaml.safe_load((build_book.ROOT / "_config.yml").read_text(encoding="utf-8"))["title"])


def _page_title(page: str) -> str:
    text = (build_book.HTML / f"{page}.html").read_text(encoding="utf-8")
    heading = re.search(r'<h1>(.*?)<a class="headerlink"', text)
    if not heading:
        raise PrintError(f"{page}.html has no heading of the first level: every page of the book begins with one")
    return html.unescape(re.sub(r"<[^>]*>", "", heading.group(1))).strip()


def print_book() -> Path:
    """Print the site that is built into one PDF; returns its path."""
    browser()  # before anything else is done, so that whoever has none is told at once
    with tempfile.TemporaryDirectory() as folder, served(build_book.HTML) as address:
        here = Path(folder)
        parts = []
        for index, page in enumerate(build_book.pages()):
            print(f"printing {page} ...", flush=True)
            parts.append((page, _page_title(page), here / f"{index}.pdf"))
            print_page(f"{address}{page}.html", parts[-1][2])
        lengths = [len(PdfReader(path).pages) for _, _, path in parts]
        starts = [2 + sum(lengths[:index]) for index in range(len(parts))]
        feet = [title for (_, title, _), length in zip(parts, lengths, strict=True) for _ in range(length)]
        for name, text in (("cover", cover(parts, starts)), ("numbers", numbers(1, feet))):
            (here / f"{name}.html").write_text(text, encoding="utf-8")
            print_page((here / f"{name}.html").as_uri(), here / f"{name}.pdf")
        book = merge(parts, address)
        sheets = PdfReader(here / "numbers.pdf").pages
        for printed, sheet in zip(book.pages, sheets, strict=True):
            printed.merge_page(sheet)
        front = PdfReader(here / "cover.pdf").pages
        if len(front) != 1:
            raise PrintError(f"the contents fill {len(front)} pages and not one: make their type smaller in cover()")
        book.insert_page(front[0], 0)
        book.compress_identical_objects()
        book.add_metadata({"/Title": _title()})
        book.write(PDF)
    return PDF


def main() -> int:
    """Build what is not up to date, then print it."""
    try:
        browser()
        build_book.build()
        path = print_book()
    except (PrintError, build_book.ChapterError) as error:
        print(f"Not printed: {error}", file=sys.stderr)
        return 1
    size = f"{len(PdfReader(path).pages)} pages, {path.stat().st_size / 2**20:.1f} MB"
    print(f"{path.relative_to(build_book.ROOT)}, {size}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
