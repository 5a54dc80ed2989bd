import json
import math
import platform
import re
import sys
import tomllib
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st

import semhub_utils as sh
from semhub_utils import results
from semhub_utils.results import Chapter, Claim

CLAIMS = """
[[claim]]
id = "peak-in-the-middle"
chapter = "part/one"
statement = "Ähnlichkeit peaks in the middle"
measure = "centred cosine"
layer_rule = "middle"
above = 0.2
expected = "holds"

[[claim]]
id = "english-first"
chapter = "part/one"
statement = "English comes first"
measure = "mass"
layer_rule = "all"
below = 0.0
expected = "does not hold"

[[claim]]
id = "who-knows"
chapter = "part/one"
statement = "Nobody knows"
measure = "rank"
layer_rule = "all"
above = -1.0
below = 1.0
expected = "open"
reason = "too few items"

[[claim]]
id = "elsewhere"
chapter = "part/two"
statement = "Another chapter's"
measure = "rank"
layer_rule = "all"
above = 0.0
expected = "holds"
"""
TABLE = ("claim", "effect", "95% interval", "n", "control", "held")
KEYS = {"name", "statement", "value", "low", "high", "n", "null", "model", "revision", "held", "seconds", "peak_mb"}
KEYS |= {"date", "machine", "versions"}


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A book with claims, the working directory deep inside it, and results elsewhere."""
    (tmp_path / "book" / "part").mkdir(parents=True)
    (tmp_path / "book" / "claims.toml").write_text(CLAIMS, encoding="utf-8")
    monkeypatch.chdir(tmp_path / "book" / "part")
    monkeypatch.setenv("SEMHUB_RESULTS", str(tmp_path / "kept"))
    return tmp_path


def measure(found, **other):
    """Everything as expected, but for what is given."""
    numbers = {"peak-in-the-middle": (0.3, 0.25, 0.4), "english-first": (0.1, -0.1, 0.2), "who-knows": (0.0, -0.5, 0.5)}
    for name, (value, low, high) in (numbers | other).items():
        found.claim(name, value=value, low=low, high=high, n=20, null=0.01)
    return found


def claim(**bounds):
    return Claim("id", "part/one", "s", "m", "all", "holds", **bounds)


def test_a_claim_above_holds_when_the_whole_interval_is_above():
    one = claim(above=0.5)
    assert one.held(0.6, 0.9)
    assert one.held(math.nextafter(0.5, 1), 0.9)
    assert not one.held(0.5, 0.9), "the threshold itself is not above"
    assert not one.held(0.4, 0.9)
    assert not one.held(0.1, 0.2)


def test_a_claim_below_holds_when_the_whole_interval_is_below():
    one = claim(below=0.5)
    assert one.held(-9.0, 0.4)
    assert one.held(-9.0, math.nextafter(0.5, 0))
    assert not one.held(-9.0, 0.5)
    assert not one.held(0.4, 0.6)


def test_a_claim_between_holds_when_the_whole_interval_is_between():
    one = claim(above=-0.5, below=0.5)
    assert one.held(-0.4, 0.4)
    for low, high in ((-0.5, 0.4), (-0.4, 0.5), (-0.6, 0.4), (-0.4, 0.6), (-1.0, 1.0)):
        assert not one.held(low, high)


@given(st.floats(-5, 5), st.floats(0, 5), st.floats(-5, 5), st.floats(0, 5))
def test_an_interval_inside_one_that_supports_a_claim_supports_it(low, width, above, gap):
    one = claim(above=above, below=above + gap)
    if one.held(low, low + width):
        assert one.held(low + width / 4, low + width / 2)
        assert above < low <= low + width < above + gap


def test_a_nan_supports_nothing():
    for one in (claim(above=0.0), claim(below=0.0), claim(above=0.0, below=1.0)):
        assert not one.held(math.nan, math.nan)


def test_claims_are_read_by_chapter_in_the_order_of_the_file(book):
    found = results.claims("part/one")
    assert list(found) == ["peak-in-the-middle", "english-first", "who-knows"]
    assert found["peak-in-the-middle"] == Claim(
        "peak-in-the-middle", "part/one", "Ähnlichkeit peaks in the middle", "centred cosine", "middle", "holds", 0.2
    )
    assert (found["english-first"].above, found["english-first"].below) == (-math.inf, 0.0)
    assert found["who-knows"].reason == "too few items"


def test_a_chapter_without_claims_is_named_with_those_that_have_some(book, llama):
    for call in (lambda: results.claims("part/three"), lambda: Chapter("part/three", llama)):
        with pytest.raises(KeyError, match=r"nothing for the chapter 'part/three'; it has part/one, part/two"):
            call()


def test_what_a_chapter_saved_is_read_back(book, llama):
    found = measure(Chapter("part/one", llama))
    path = found.save()
    assert path == book / "kept" / "part" / "one.json"
    read = results.read("part/one")
    assert [r["name"] for r in read] == ["peak-in-the-middle", "english-first", "who-knows"]
    first = read[0]
    assert set(first) >= KEYS
    assert first["statement"] == "Ähnlichkeit peaks in the middle"
    assert (first["value"], first["low"], first["high"], first["n"], first["null"]) == (0.3, 0.25, 0.4, 20, 0.01)
    assert (first["model"], first["revision"]) == (llama.spec.name, llama.spec.revision)
    assert [r["held"] for r in read] == [True, False, True]
    assert all(r["seconds"] > 0 and r["peak_mb"] > 100 for r in read)


def test_a_result_says_when_where_and_with_what_it_was_made(book, llama):
    before = datetime.now(UTC).replace(microsecond=0)
    measure(Chapter("part/one", llama)).save()
    for result in results.read("part/one"):
        assert before <= datetime.fromisoformat(result["date"]) <= datetime.now(UTC)
        assert result["date"].endswith("Z")
        assert result["versions"]["torch"] == torch.__version__
        assert result["versions"]["Python"] == ".".join(map(str, sys.version_info[:3]))
        assert set(result["versions"]) == {"Python", "torch", "transformers", "numpy"}
        assert re.match(r"[1-9]\d* CPU cores, \w", result["machine"])
        assert platform.node() not in result["machine"]


def test_on_a_gpu_the_machine_is_named_by_it(llama, monkeypatch):
    monkeypatch.setattr(type(llama), "device", torch.device("cuda:0"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Tesla T4 {device.index}")
    assert results.this_run(llama)["machine"] == "2 GPU, Tesla T4 0"


def test_the_file_is_plain_json_in_utf8(book, llama):
    text = measure(Chapter("part/one", llama)).save().read_text(encoding="utf-8")
    assert "Ähnlichkeit" in text

    def no_constant(name):
        raise AssertionError(f"{name} is not JSON")

    assert len(json.loads(text, parse_constant=no_constant)) == 3


def test_numbers_of_numpy_and_torch_are_saved_as_numbers(book, llama):
    found = measure(Chapter("part/one", llama))
    found.claim(
        "who-knows",
        value=np.float64(0.5),
        low=torch.tensor(0.25).item(),
        high=np.float64(0.75),
        n=7,
        null=np.float64(0.0),
    )
    found.save()
    last = results.read("part/one")[-1]
    assert (last["value"], last["low"], last["high"], last["n"], last["null"], last["held"]) == (
        0.5,
        0.25,
        0.75,
        7,
        0,
        True,
    )


def test_claim_says_whether_it_held(book, llama):
    found = Chapter("part/one", llama)
    assert found.claim("peak-in-the-middle", value=0.3, low=0.21, high=0.4, n=5, null=0.0) is True
    assert found.claim("peak-in-the-middle", value=0.3, low=0.19, high=0.4, n=5, null=0.0) is False


def test_a_claim_measured_twice_counts_once_with_its_last_numbers(book, llama):
    found = measure(Chapter("part/one", llama))
    found.claim("peak-in-the-middle", value=0.9, low=0.8, high=1.0, n=3, null=0.0)
    found.save()
    read = {r["name"]: r for r in results.read("part/one")}
    assert len(read) == len(results.read("part/one")) == 3
    assert read["peak-in-the-middle"]["value"] == 0.9


def test_an_unknown_claim_is_named_with_those_of_the_chapter(book, llama):
    with pytest.raises(KeyError, match=r"'elsewhere' is no claim of part/one: claims.toml has peak-in-the-middle, eng"):
        Chapter("part/one", llama).claim("elsewhere", value=1.0, low=0.0, high=2.0, n=1, null=0.0)


def test_a_value_outside_its_interval_is_an_error(book, llama):
    found = Chapter("part/one", llama)
    for value, low, high in ((1.0, 0.0, 0.9), (-0.1, 0.0, 0.9), (0.5, 0.9, 0.0)):
        with pytest.raises(ValueError, match=rf"who-knows: the value {value} does not lie .* from {low} to {high}"):
            found.claim("who-knows", value=value, low=low, high=high, n=3, null=0.0)
    assert found.results == []


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["value", "low", "high", "null"])
def test_a_number_that_is_not_finite_is_an_error(book, llama, name, bad):
    numbers = {"value": 0.5, "low": 0.4, "high": 0.6, "null": 0.0} | {name: bad}
    found = Chapter("part/one", llama)
    with pytest.raises(ValueError, match="who-knows"):
        found.claim("who-knows", n=3, **numbers)
    assert found.results == []


def test_save_wants_every_claim_of_the_chapter(book, llama):
    found = Chapter("part/one", llama)
    found.claim("english-first", value=0.1, low=0.0, high=0.2, n=3, null=0.0)
    with pytest.raises(ValueError, match="part/one claims peak-in-the-middle, who-knows and this run did not measure"):
        found.save()
    with pytest.raises(FileNotFoundError):
        results.read("part/one")


def test_reading_a_chapter_that_has_not_run_says_how_to_run_it(book):
    with pytest.raises(
        FileNotFoundError, match=r"no results of part/two at .*two.json: run the chapter first, or `make"
    ):
        results.read("part/two")


def test_a_run_as_expected_differs_in_nothing(book, llama):
    measure(Chapter("part/one", llama)).save()
    assert results.differences("part/one") == []


def test_a_claim_that_fails_though_expected_to_hold_is_a_difference(book, llama):
    measure(Chapter("part/one", llama), **{"peak-in-the-middle": (0.3, 0.1, 0.4)}).save()
    assert results.differences("part/one") == [
        "peak-in-the-middle was expected to hold and did not: Ähnlichkeit peaks in the middle"
    ]


def test_a_claim_that_holds_though_expected_to_fail_is_a_difference(book, llama):
    measure(Chapter("part/one", llama), **{"english-first": (-0.3, -0.4, -0.1)}).save()
    assert results.differences("part/one") == ["english-first was expected to fail and did not: English comes first"]


def test_an_open_claim_never_differs(book, llama):
    measure(Chapter("part/one", llama), **{"who-knows": (3.0, 2.0, 4.0)}).save()
    assert not results.read("part/one")[2]["held"]
    assert results.differences("part/one") == []


def test_a_claim_that_was_added_after_the_run_is_a_difference(book, llama):
    measure(Chapter("part/one", llama)).save()
    added = CLAIMS.replace('id = "elsewhere"\nchapter = "part/two"', 'id = "elsewhere"\nchapter = "part/one"')
    (book / "book" / "claims.toml").write_text(added, encoding="utf-8")
    assert len(results.differences("part/one")) == 1
    assert "elsewhere" in results.differences("part/one")[0]


def test_the_table_shows_effect_interval_number_control_and_outcome(book, llama):
    found = measure(Chapter("part/one", llama))
    found.claim("who-knows", value=0.0, low=-0.5, high=0.5, n=3, null=None)
    soup = BeautifulSoup(found.table().to_html(), "html.parser")
    assert [th.get_text() for th in soup.thead.find_all("th")] == list(TABLE)
    rows = [[td.get_text() for td in tr.find_all("td")] for tr in soup.tbody.find_all("tr")]
    assert rows[0] == ["Ähnlichkeit peaks in the middle", "0.30", "0.25 to 0.40", "20", "0.01", "yes"]
    assert [row[-1] for row in rows] == ["yes", "no", "yes"]
    assert rows[2][1:] == ["0.00", "-0.50 to 0.50", "3", "none", "yes"]


def test_a_small_difference_is_shown_to_three_digits_and_a_larger_one_to_two():
    small = {"statement": "a", "value": 0.0042, "low": -0.0004, "high": 0.0996, "n": 9, "null": 0.011, "held": False}
    assert list(results.as_text(small).values()) == ["a", "0.004", "-0.000 to 0.100", "9", "0.011", "no"]
    assert results.as_text(small | {"high": 0.1})["95% interval"] == "-0.00 to 0.10"


def test_a_claim_without_a_control_has_none(book, llama):
    found = measure(Chapter("part/one", llama))
    found.claim("who-knows", value=0.0, low=-0.5, high=0.5, n=3, null=None)
    found.save()
    assert results.read("part/one")[2]["null"] is None


def test_results_go_to_the_build_folder_of_the_book_around(book, monkeypatch):
    monkeypatch.delenv("SEMHUB_RESULTS")
    assert results.folder() == book / "_build" / "results"


def test_results_go_to_the_working_directory_where_there_is_no_book(tmp_path, monkeypatch):
    monkeypatch.delenv("SEMHUB_RESULTS", raising=False)
    monkeypatch.chdir(tmp_path)
    assert results.folder().resolve() == tmp_path / "results"


def test_say_shows_markdown(monkeypatch):
    shown = []
    monkeypatch.setattr(results, "display", shown.append)
    sh.say("The peak is at **3**.")
    assert shown[0].data == "The peak is at **3**."
    assert shown[0]._repr_markdown_() == "The peak is at **3**."


def test_the_books_own_claims_are_well_formed():
    entries = [Claim(**entry) for entry in tomllib.loads(results._claims_text()).get("claim", [])]
    ids = [(entry.chapter, entry.id) for entry in entries]
    assert len(ids) == len(set(ids))
    for entry in entries:
        assert entry.expected in ("holds", "does not hold", "open"), entry.id
        assert entry.above > -math.inf or entry.below < math.inf, f"{entry.id} has no threshold"
        assert entry.above < entry.below, entry.id
        assert all((entry.statement, entry.measure, entry.layer_rule)), entry.id


@pytest.mark.parametrize(
    ("given", "message"),
    [({"expected": "hold", "above": 0.0}, "expected is 'hold'"), ({"expected": "holds"}, "could not fail")],
)
def test_a_claim_with_a_typo_or_without_a_threshold_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Claim(id="a", chapter="c", statement="s", measure="m", layer_rule="r", **given)


def test_a_mean_is_recorded_with_its_interval(book, llama):
    found = Chapter("part/one", llama)
    scores = [1.0, 2.0, 4.0, 3.0, 2.0, 5.0]
    assert found.mean("peak-in-the-middle", scores, null=0.5)
    (kept,) = found.results
    low, high = sh.interval(sh.bootstrap(np.array(scores)))
    assert (kept["value"], kept["low"], kept["high"]) == pytest.approx((np.mean(scores), low, high))
    assert (kept["n"], kept["null"]) == (6, 0.5)
    assert not found.mean("peak-in-the-middle", [0.1] * 7)  # one value only: the interval is a point


def test_a_claim_that_could_not_be_judged_is_said_to_be_so_and_differs_from_nothing(book, llama):
    found = Chapter("part/one", llama)
    found.claim("english-first", value=0.1, low=-0.1, high=0.2, n=20, null=None)
    found.not_judged("peak-in-the-middle", "a package is missing")
    found.not_judged("who-knows", "a package is missing")
    found.save()
    assert results.differences("part/one") == []
    kept = {result["name"]: result for result in results.read("part/one")}
    assert kept["peak-in-the-middle"]["held"] is None
    assert kept["peak-in-the-middle"]["not_judged"] == "a package is missing"
    assert results.as_text(kept["peak-in-the-middle"]) | {"claim": ""} == dict.fromkeys(TABLE, "") | {
        "held": "not judged: a package is missing"
    }
    assert "not judged: a package is missing" in found.table().to_html()
    with pytest.raises(KeyError, match="'nothing' is no claim of part/one"):
        found.not_judged("nothing", "a package is missing")


def test_a_claim_is_judged_after_all_once_it_is_measured(book, llama):
    found = Chapter("part/one", llama)
    found.not_judged("peak-in-the-middle", "not yet")
    measure(found)
    assert {result["name"]: result["held"] for result in found.results}["peak-in-the-middle"] is True
    assert len(found.results) == 3
