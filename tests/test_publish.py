"""Publishing: the address of the site, the push, the archive, and what the workflows call."""

import re
import subprocess
import zipfile

import pytest
import yaml

import base_url
import build_book
import publish
import release

ROOT = build_book.ROOT


@pytest.mark.parametrize(
    ("repository", "expected"),
    [
        ("https://github.com/Some-One/semantic-hub", "https://some-one.github.io/semantic-hub/"),
        ("https://github.com/some/some.github.io", "https://some.github.io/"),
        ("https://github.com/some/book.git", "https://some.github.io/book/"),
        ("https://gitlab.com/group/part/book", "https://group.gitlab.io/part/book/"),
        ("https://code.example.org/some/book", None),
        (None, None),
    ],
)
def test_the_address_of_the_site_follows_from_that_of_the_repository(monkeypatch, repository, expected):
    monkeypatch.delenv("SEMHUB_SITE", raising=False)
    monkeypatch.setattr(base_url, "address", lambda: repository)
    assert base_url.site() == expected


def test_an_address_that_is_given_wins_and_a_wrong_one_is_named(monkeypatch):
    monkeypatch.setattr(base_url, "address", lambda: "https://github.com/some/book")
    monkeypatch.setenv("SEMHUB_SITE", "https://example.org/course")
    assert base_url.site() == "https://example.org/course/"
    monkeypatch.setenv("SEMHUB_SITE", "example.org/course")
    with pytest.raises(ValueError, match=r"'example\.org/course': give a whole address"):
        base_url.site()


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A clone with one commit, and a bare repository as its remote `origin`."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    (tmp_path / "gitconfig").write_text("[user]\nname = A Reader\nemail = reader@example.org\n")
    _git(tmp_path, "init", "-q", "--bare", "remote.git")
    _git(tmp_path, "init", "-q", "-b", "main", "clone")
    folder = tmp_path / "clone"
    (folder / "README.md").write_text("A book\n")
    (folder / ".gitignore").write_text("html/\n")
    _git(folder, "add", "-A")
    _git(folder, "commit", "-q", "-m", "Begin")
    _git(folder, "remote", "add", "origin", str(tmp_path / "remote.git"))
    return folder


def _git(folder, *arguments):
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def test_what_is_pushed_is_the_site_and_nothing_else(clone):
    html = clone / "html"
    (html / "_static").mkdir(parents=True)
    (html / "index.html").write_text("<h1>One</h1>")
    (html / "_static" / "old.css").write_text("p {}")
    publish.check(clone, "origin")
    publish.push(html, clone, "origin")
    (html / "index.html").write_text("<h1>Two</h1>")
    (html / "_static" / "old.css").unlink()
    (html / "_static" / "new.css").write_text("p {}")
    publish.push(html, clone, "origin")

    remote = clone.parent / "remote.git"
    assert _git(remote, "ls-tree", "-r", "--name-only", "gh-pages").split() == [
        ".nojekyll",
        "_static/new.css",
        "index.html",
    ]
    assert _git(remote, "show", "gh-pages:index.html") == "<h1>Two</h1>"
    assert _git(clone, "rev-parse", "--short", "HEAD").strip() in _git(remote, "log", "-1", "--format=%s", "gh-pages")
    assert _git(clone, "status", "--porcelain") == ""
    assert _git(clone, "branch", "--show-current") == "main\n"


def test_a_clone_with_changes_is_not_published(clone):
    (clone / "README.md").write_text("Changed\n")
    with pytest.raises(publish.PublishError, match=r"not committed[\s\S]*README.md[\s\S]*git stash"):
        publish.check(clone, "origin")


def test_a_remote_that_is_not_there_is_named_with_those_there_are(clone):
    with pytest.raises(publish.PublishError, match=r"no remote 'upstream', there is origin: .*git remote add upstream"):
        publish.check(clone, "upstream")


def test_a_remote_that_does_not_answer_is_an_error_with_what_git_said(clone):
    (clone / "html").mkdir()
    (clone / "html" / "index.html").write_text("<h1>One</h1>")
    _git(clone, "remote", "set-url", "origin", str(clone.parent / "gone.git"))
    with pytest.raises(publish.PublishError, match=r"could not push to 'origin':[\s\S]*gone.git"):
        publish.push(clone / "html", clone, "origin")


def test_the_archive_is_the_same_bytes_whenever_it_is_written(tmp_path):
    held = {"b.txt": b"two" * 100, "a/c.txt": b"one"}
    release.write(tmp_path / "book-1.zip", held)
    first = (tmp_path / "book-1.zip").read_bytes()
    release.write(tmp_path / "book-1.zip", dict(reversed(held.items())))
    assert (tmp_path / "book-1.zip").read_bytes() == first
    with zipfile.ZipFile(tmp_path / "book-1.zip") as archive:
        assert archive.namelist() == ["book-1/a/c.txt", "book-1/b.txt"]
        assert archive.read("book-1/b.txt") == b"two" * 100


def test_the_archive_holds_the_site_the_runs_and_their_results():
    build_book.build()
    held = release.contents()
    for chapter in build_book.chapters():
        assert b'"outputs"' in held[f"notebooks/{chapter}.ipynb"]
        assert held[f"results/{chapter}.json"].startswith(b"[")
        assert f"site/{chapter}.html" in held
    assert {"README.txt", "LICENSE", "claims.toml", "site/index.html", "site/404.html"} <= held.keys()
    assert [name for name in held if "/." in name] == []
    named = re.findall(r"^(\S+?)/? {2,}", held["README.txt"].decode(), re.M)
    assert all(any(name == one or name.startswith(f"{one}/") for name in held) for one in named)


def test_every_command_of_a_workflow_is_there():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    workflows = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    assert {path.stem for path in workflows} == {"publish", "release", "tests", "weekly"}
    for path in workflows:
        read = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert read["permissions"], path.name
        assert read[True], path.name  # YAML reads the key `on` as true
        for job in read["jobs"].values():
            for step in job["steps"]:
                assert ("run" in step) != ("uses" in step), step
                if "uses" in step:
                    assert re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"]), step["uses"]
                commands = step.get("run", "")
                assert set(re.findall(r"^ *make ([a-z]+)", commands, re.M)) <= targets, step
                files = re.findall(r"(?<![\w/])((?:tools|tests|\.ci)/[\w./-]+)", commands)
                assert [file for file in files if not (ROOT / file).exists()] == []
