"""The comparison with other libraries: what it calls equal, what it says of a peer that is absent, and its two ends."""

import json
import sys
from pathlib import Path

import pytest
import torch

import environments
import marked
import peer_work
import peers

EXACT = {"logprob": torch.tensor([[[-2.0, -700.0]]]), "rank": torch.tensor([[[5, 100_000]]])}


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return peers.make_job("tiny", tmp_path_factory.mktemp("peers"), n=48, new=5)


@pytest.fixture(scope="module")
def right(job):
    return {name: answer(job, "reference", name) for name in peers.WORKS}


def answer(job, way, name):
    batches = job["batches"][name]
    return peer_work.in_order(name, peer_work.done(peer_work.WAYS[way](job), name, batches), batches)


@pytest.mark.parametrize("name", peers.WORKS)
def test_ours_and_the_bare_work_agree_with_plain_hooks(job, right, name):
    assert peers.difference(name, answer(job, "ours", name), right[name], exact=True) == ""
    assert peers.difference(name, answer(job, "bare", name), right[name], exact=True) == ""


def test_the_reference_is_what_transformers_itself_says(job, right):
    bare = peer_work.Bare(job)
    rows, lens, start = right["states"]["states"], right["lens"], 0
    for batch in job["batches"]["states"]:
        with torch.no_grad():
            kept = bare.hf.model(**bare.inputs(batch), output_hidden_states=True).hidden_states
        torch.testing.assert_close(
            rows[start : start + len(batch["texts"]), :-1], torch.stack(kept[:-1], 1)[:, :, -1].float()
        )
        start += len(batch["texts"])
    (batch,) = job["batches"]["lens"]
    with torch.no_grad():
        logits = bare.hf(**bare.inputs(batch)).logits[batch["attention_mask"].bool()]
    torch.testing.assert_close(lens["logprob"][-1], logits.log_softmax(1)[:, job["targets"]])
    order = logits.argsort(1, descending=True)
    assert lens["rank"][-1].T.tolist() == [(order == one).int().argmax(1).tolist() for one in job["targets"]]


def test_the_vector_changes_what_is_generated_and_is_added_to_the_last_bit(job, right):
    plain = peer_work.Bare(job)
    with torch.no_grad():
        ids = plain.hf.generate(**plain.prompts(job["batches"]["steer"]), **plain.greedy)
    assert ids.shape[1] - job["batches"]["steer"][0]["input_ids"].shape[1] == 5
    assert (ids[:, -5:] != right["steer"]["ids"]).any()
    vector = job["vector"]
    assert torch.equal(vector / vector.norm() * vector.norm(), vector)


def test_a_wrong_result_is_flagged(right):
    states = right["states"]["states"]
    normed = torch.cat([states[:, :-1], states[:, -1:] * 1.01], 1)
    assert "off by 0.01" in peers.difference("states", {"states": normed}, right["states"], True)
    assert "off by inf" in peers.difference("states", {"states": states * torch.nan}, right["states"], True)
    assert "shape" in peers.difference("states", {"states": states[:, 1:]}, right["states"], True)
    ids = right["steer"]["ids"].clone()
    ids[0, -1] += 1
    assert "33%" in peers.difference("steer", {"ids": ids[:1, -3:]}, {"ids": right["steer"]["ids"][:1, -3:]}, True)
    assert peers.difference("steer", {"ids": ids}, right["steer"], exact=False) == ""
    assert "first" in peers.difference("steer", {"ids": ids + 1}, right["steer"], exact=False)


@pytest.mark.parametrize(
    ("part", "by", "said"),
    [("logprob", 0.004, ""), ("logprob", -0.02, "log-prob"), ("rank", 90, ""), ("rank", -200, "ranks")],
)
def test_a_lens_may_round_differently_and_no_more(part, by, said):
    found = EXACT | {part: EXACT[part] + torch.tensor([0, by])}
    assert peers.difference("lens", found, EXACT, exact=True)[: len(said) or None] == said


def test_a_peer_that_cannot_be_made_or_does_not_import_has_a_row_that_says_so(monkeypatch, tmp_path, job):
    def refuse(folder, wanted, more):
        assert wanted["torch"] == environments.tested_torch()
        if folder.name == "nnsight":
            raise environments.EnvironmentFailed("it could not be made:\nLooking\nERROR: No matching version | here")
        return Path(sys.executable)

    monkeypatch.setattr(environments, "make", refuse)
    found = peers.pythons(["bare", "nnsight", "nnterp"])
    assert found["nnsight"] == "cannot be installed: ERROR: No matching version | here"

    def run(python, way, file, name, measure, out=None):
        if way == "nnterp":
            return {"error": "ImportError: no name 'x'"}
        if out:
            torch.save(None, out)
        return {"seconds": 2.0, "peak": 2**20, "versions": {}, "threads": 1}

    monkeypatch.setattr(peers, "run", run)
    rows = peers.measure_all(job, tmp_path, found, ["states"], 1)
    lines = peers.table(rows).splitlines()[2:]
    assert lines[0] == "| last-token states | bare | 2.00 | 1.00 |  | 1 |  |  |"
    assert "nnsight 0.8.1" in lines[1]
    assert "cannot be installed: ERROR: No matching version / here" in lines[1]
    assert "does not run: ImportError: no name 'x'" in lines[2]


def test_the_line_of_an_error_is_the_one_that_names_it():
    said = "Traceback\n  File \"a.py\", line 1, in <module>\nModuleNotFoundError: No module named 'x'\n"
    assert peers.first_error(said) == "ModuleNotFoundError: No module named 'x'"
    assert peers.first_error("") == "it says nothing"


def test_what_is_asked_of_ours_is_judged_by_its_figures():
    def row(way, seconds, peak, note=""):
        return {"work": "states", "way": way, "seconds": seconds, "peak": peak, "note": note}

    rows = [row("bare", 10.0, 1), row("ours", 11.5, 100), row("nnsight", 11.0, 90), row("nnterp", 1.0, 1, "wrong")]
    asked = {(one["against"], one["key"]): one["met"] for one in peers.judged(rows)}
    assert asked == {("nnsight", "seconds"): True, ("nnsight", "peak"): False, ("bare", "seconds"): False}


def test_a_gpu_is_asked_for_where_there_is_none(capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(SystemExit):
        peers.main(["--gpu"])
    assert "--gpu needs a CUDA GPU" in capsys.readouterr().err


def test_the_page_has_the_figures_of_the_run_that_is_kept_which_met_all_that_is_asked():
    made = json.loads(peers.KEPT.read_text(encoding="utf-8"))
    page = peers.PAGE.read_text(encoding="utf-8")
    assert peers.written(page, made) == page
    assert made["asked"] == peers.judged(made["rows"])
    # Two kinds of figure against three libraries in three pieces of work, and the bare work for two of them.
    assert len(made["asked"]) == 20
    assert [one for one in made["asked"] if not one["met"]] == []


def test_a_way_that_has_no_figure_says_why_on_the_page():
    figures = {"seconds": 1.25, "peak": 2**30, "note": ""}
    rows = [{"work": name, "way": way} | figures for name in peers.WORKS for way in peers.WAYS]
    rows[1] = {"work": "states", "way": "ours", "note": "does not run"}
    rows[2]["note"] = "gives other numbers"
    made = {"rows": rows, "texts": dict.fromkeys(peers.WORKS, 5), "versions": {"torch": "2"}, "date": "2026-11-23T10"}
    page = peers.written("<!-- peers -->\nold\n<!-- end of peers -->", made | {"model": "m", "machine": "CPU"})
    assert "old" not in page
    assert "| semhub_utils | does not run |  | 1.2 | 1,024 | 1.2 | 1,024 |" in page
    assert "| nnsight 0.8.1 | 1.2 gives other numbers | 1,024 |" in page
    assert "m; CPU; torch 2; 2026-11-23." in page


def test_a_page_without_its_marks_is_refused():
    with pytest.raises(ValueError, match=r"has 0 parts between <!-- peers -->"):
        marked.filled("no marks", "peers", "text")


def test_a_part_of_the_work_is_not_kept(capsys):
    with pytest.raises(SystemExit):
        peers.main(["--keep", "--works", "lens"])
    assert "--keep is for the whole" in capsys.readouterr().err
