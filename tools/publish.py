"""Build the book and push its site to the branch gh-pages of a remote.

python tools/publish.py [REMOTE]   the remote is origin unless another is named
"""

import argparse
import subprocess
import sys
from pathlib import Path

import build_book
from base_url import site

BRANCH = "gh-pages"


class PublishError(Exception):
    """The site cannot be published as things are."""


def check(repository: Path, remote: str) -> None:
    """Whether the site can be published from this clone.

    Raises:
        PublishError: when files are not committed, or there is no such remote; it says what to do.
    """
    if changed := _git(repository, "status", "--porcelain"):
        raise PublishError(
            f"these files are not committed, so nobody could build again what would be published:\n{changed}\n"
            "Commit them, or put them away with `git stash -u`."
        )
    remotes = _git(repository, "remote").split()
    if remote not in remotes:
        raise PublishError(
            f"there is no remote {remote!r}, there is {', '.join(remotes) or 'none'}: "
            f"add it with `git remote add {remote} URL`, or name another with REMOTE=NAME."
        )


def push(html: Path, repository: Path, remote: str) -> None:
    """Push a folder, as it is, as one commit more on the branch gh-pages of a remote.

    Raises:
        PublishError: with what git said, when the remote does not take it.
    """
    message = f"The site built from {_git(repository, 'rev-parse', '--short', 'HEAD')}"
    options = ["--no-jekyll", "--push", "--force", "--remote", remote, "--branch", BRANCH, "--message", message]
    program = [sys.executable, "-m", "ghp_import", *options, str(html)]
    done = subprocess.run(program, cwd=repository, capture_output=True, text=True)
    if done.returncode:
        raise PublishError(f"git could not push to {remote!r}:\n{done.stderr.strip()}")


def _git(repository: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=repository, capture_output=True, text=True)
    if done.returncode:
        raise PublishError(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


def main() -> int:
    """Check, build, push."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("remote", nargs="?", default="origin")
    remote = parser.parse_args().remote
    try:
        where = site()
        check(build_book.ROOT, remote)
        push(build_book.build().parent, build_book.ROOT, remote)
    except (PublishError, ValueError, build_book.ChapterError) as error:
        print(f"Not published: {error}", file=sys.stderr)
        return 1
    print(f"Pushed to the branch {BRANCH} of {remote}.")
    print(
        f"Its pages are at {where}"
        if where
        else "The book does not know its own address, so its pages carry no picture for other sites to show, and the "
        "page for wrong addresses works at the root of a host only: `make address URL=...` sets it."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
