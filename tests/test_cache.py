import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semhub_utils import cache

# A maker as another process: it notes that it ran, writes half, waits for leave if told to, and writes the rest.
# (The module is read from its file, since the whole package takes seconds to import.)
MAKER = """
import importlib.util, sys, time
from pathlib import Path

spec = importlib.util.spec_from_file_location("cache", sys.argv[3])
cache = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cache)
notes, wait = Path(sys.argv[1]), sys.argv[2] == "wait"

def make(folder):
    with (notes / "ran").open("a") as ran:
        ran.write("x")
    (folder / "first").write_text("half")
    (notes / "half-way").touch()
    while wait and not (notes / "go").exists():
        time.sleep(0.01)
    (folder / "second").write_text("whole")

print(cache.folder("kind", "key", make))
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMHUB_CACHE", str(tmp_path / "cache"))
    return tmp_path


def start(here, mode="run"):
    command = [sys.executable, "-c", MAKER, str(here), mode, cache.__file__]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_for(path, process):
    while not path.exists():
        assert process.poll() is None, "the maker ended early"
        time.sleep(0.01)


def entries(here):
    """What there is of the kind, but for lock files."""
    return sorted(p.name for p in (here / "cache" / "kind").iterdir() if not p.name.endswith(".lock"))


def test_the_root_is_what_the_environment_says(here, monkeypatch):
    assert cache.root() == here / "cache"
    monkeypatch.delenv("SEMHUB_CACHE")
    assert cache.root().name == "semantic-hub"
    monkeypatch.setenv("SEMHUB_CACHE", "")
    assert cache.root().name == "semantic-hub"


def test_a_key_is_16_hex_digits_and_the_same_each_time(tmp_path):
    file = tmp_path / "a.py"
    file.write_text("x")
    one = cache.key({"n": 1}, [file], "hash")
    assert one == cache.key({"n": 1}, [file], "hash")
    assert len(one) == 16
    int(one, 16)


def test_a_key_is_the_same_in_another_process(here):
    code = MAKER.split("notes, wait")[0] + "print(cache.key({'b': [1, 'ü'], 'a': None}, [], 'm'))"
    command = [sys.executable, "-c", code, "", "", cache.__file__]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == cache.key({"a": None, "b": [1, "ü"]}, [], "m")


def test_a_key_changes_with_each_input_the_model_and_each_file(tmp_path):
    files = [tmp_path / name for name in ("a.py", "b.py")]
    for file in files:
        file.write_text(file.name)
    keys = [
        cache.key({"n": 1, "m": "x"}, files, "hash"),
        cache.key({"n": 2, "m": "x"}, files, "hash"),
        cache.key({"n": 1, "m": "y"}, files, "hash"),
        cache.key({"n": 1, "m": "x", "k": None}, files, "hash"),
        cache.key([{"n": 1, "m": "x"}], files, "hash"),
        cache.key({"n": 1, "m": "x"}, files, "other"),
        cache.key({"n": 1, "m": "x"}, files[:1], "hash"),
        cache.key({"n": 1, "m": "x"}, [], "hash"),
    ]
    for file in files:
        file.write_text("changed")
        keys.append(cache.key({"n": 1, "m": "x"}, files, "hash"))
    assert len(set(keys)) == len(keys)


def test_a_key_knows_two_files_of_one_name(tmp_path):
    files = [tmp_path / part / "__init__.py" for part in ("a", "b")]
    for file in files:
        file.parent.mkdir()
        file.write_text("x")
    keys = {cache.key(0, files)}
    for file in files:
        file.write_text(str(file))
        keys.add(cache.key(0, files))
    assert len(keys) == 3


def test_a_key_does_not_depend_on_the_order_of_the_files_nor_on_where_they_are(tmp_path):
    keys = set()
    for place in ("here", "there"):
        files = [tmp_path / place / name for name in ("a.py", "b.py")]
        files[0].parent.mkdir()
        for file in files:
            file.write_text(file.name)
        keys |= {cache.key(0, files), cache.key(0, files[::-1]), cache.key(0, iter(files))}
    assert len(keys) == 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=100)
@given(st.dictionaries(st.text(), json_values, max_size=5), st.randoms())
def test_the_order_of_a_dict_does_not_matter(inputs, random):
    items = list(inputs.items())
    random.shuffle(items)
    assert cache.key(dict(items)) == cache.key(inputs)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.text(max_size=4), st.text(max_size=4)), min_size=2, max_size=6, unique=True))
def test_different_inputs_have_different_keys(pairs):
    assert len({cache.key(a, model=b) for a, b in pairs}) == len(pairs)


def test_a_folder_is_made_once(here):
    ran = []

    def make(folder):
        ran.append(folder)
        assert list(folder.iterdir()) == []
        (folder / "deep").mkdir()
        (folder / "deep" / "file").write_text("x")

    first = cache.folder("kind", "key", make)
    assert cache.folder("kind", "key", make) == first == here / "cache" / "kind" / "key"
    assert len(ran) == 1
    assert ran[0] != first, "a reader could see half an entry"
    assert (first / "deep" / "file").read_text() == "x"
    assert entries(here) == ["key"]


def test_another_key_or_kind_is_another_folder(here):
    made = {cache.folder(kind, key, lambda _: None) for kind in ("a", "b") for key in ("1", "2")}
    assert len(made) == 4


def test_a_maker_that_raises_leaves_nothing(here):
    def broken(folder):
        (folder / "file").write_text("half")
        raise RuntimeError("no space")

    with pytest.raises(RuntimeError, match="no space"):
        cache.folder("kind", "key", broken)
    assert entries(here) == []
    cache.folder("kind", "key", lambda folder: (folder / "file").write_text("whole"))
    assert (here / "cache" / "kind" / "key" / "file").read_text() == "whole"


def test_two_processes_at_once_get_the_same_entry_and_make_it_once(here):
    first = start(here, "wait")
    wait_for(here / "half-way", first)
    second = start(here)
    time.sleep(0.2)
    assert second.poll() is None, "the second did not wait for the first"
    assert "key" not in entries(here)
    (here / "go").touch()
    outputs = [process.communicate()[0].strip() for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0)
    assert outputs == [str(here / "cache" / "kind" / "key")] * 2
    assert (here / "ran").read_text() == "x"
    assert entries(here) == ["key"]
    assert sorted(p.name for p in Path(outputs[0]).iterdir()) == ["first", "second"]


def test_a_maker_that_is_killed_leaves_no_entry_and_the_next_clears_up(here):
    process = start(here, "wait")
    wait_for(here / "half-way", process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    left = entries(here)
    assert len(left) == 1
    assert left[0].startswith("key.partial-")
    again = start(here)
    again.communicate()
    assert again.returncode == 0
    assert entries(here) == ["key"]
    assert sorted(p.name for p in (here / "cache" / "kind" / "key").iterdir()) == ["first", "second"]
    assert (here / "ran").read_text() == "xx"


def test_a_maker_at_work_on_another_key_is_left_alone(here):
    process = start(here, "wait")
    wait_for(here / "half-way", process)
    cache.folder("kind", "other", lambda folder: None)
    cache.folder("kind", "ke", lambda folder: None)
    (here / "go").touch()
    process.communicate()
    assert process.returncode == 0
    assert entries(here) == ["ke", "key", "other"]


@pytest.mark.parametrize("text", ["", "one\ntwo\n", "Ähnlich 狗 🐶"])
def test_a_text_is_written_whole_and_over_what_was_there(tmp_path, text):
    path = tmp_path / "new" / "folder" / "file.json"
    cache.write_text(path, "old and longer than what comes")
    cache.write_text(path, text)
    assert path.read_text(encoding="utf-8") == text
    assert [p.name for p in path.parent.iterdir()] == ["file.json"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_reader_sees_the_old_text_until_the_new_one_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "file"
    cache.write_text(path, "old")
    seen = []

    def replace(source, target):
        seen.append((Path(source).read_text(), path.read_text()))
        rename(source, target)

    rename = os.replace
    monkeypatch.setattr(os, "replace", replace)
    cache.write_text(path, "new")
    assert seen == [("new", "old")]
    assert path.read_text() == "new"


def test_a_text_that_cannot_be_written_leaves_the_old_one_and_no_litter(tmp_path):
    path = tmp_path / "file"
    cache.write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        cache.write_text(path, "new \ud800")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_scratch_folder_is_empty_and_what_killed_processes_left_goes(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMHUB_CACHE", str(tmp_path))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    host = platform.node()
    left, elsewhere = (tmp_path / "offload" / name for name in (f"{host}-{gone.pid}-abc", f"not-{host}-{gone.pid}-abc"))
    for folder in (left, elsewhere):
        folder.mkdir(parents=True)
    first, second = cache.scratch("offload"), cache.scratch("offload")
    assert first != second
    assert not any(first.iterdir())
    assert {path.name for path in (tmp_path / "offload").iterdir()} == {first.name, second.name, elsewhere.name}
