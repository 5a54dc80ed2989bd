"""The table of grown models is what the code gives: another model of it is grown again each day."""

from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest

import grow_hubs as tool
from semhub_utils import grow
from semhub_utils.data.controls import grown_by, grown_table
from semhub_utils.grow import Plan
from today import TODAY

MODEL = ["share", "parallel", "swapped", "width", "steps", "seed"]
SMALL = [Plan(width=16, blocks=2, steps=8, seed=seed) for seed in (1, 2)]


@pytest.fixture(scope="module")
def table():
    return grown_table()


def of(plan, table):
    told = {name: value for name, value in asdict(plan).items() if name in MODEL}
    return table[(table[list(told)] == list(told.values())).all(axis=1)]


def end_of(rows):
    """One number a measure and language at the end of training, layers averaged over the middle."""
    last = rows[(rows["step"] == rows["step"].max()) & rows["layer"].isin([-1, 2, 3])]
    return last.groupby(["measure", "asked"])["value"].mean()


def test_the_table_has_every_plan_and_is_of_these_texts(table):
    assert grown_by()["key"] == tool.key(), "run tools/grow_hubs.py and commit its table"
    plans = tool.plans()
    assert len(set(plans)) == len(plans) == len(table.groupby(MODEL)) == 85
    for plan in plans:
        rows = of(plan, table)
        assert sorted(rows["step"].unique()) == [plan.steps * number // 8 for number in range(9)]
        assert rows["value"].notna().all()
    assert min(plan.seed for plan in plans) == 10


def test_the_model_of_today_comes_out_as_those_of_its_cell(table):
    # The widest and the longest take twice as long and more, so they have their turn by hand (`tools/grow_hubs.py`).
    plans = [plan for plan in tool.plans() if plan.width < 128 and plan.steps < tool.LONGER and plan.seed in tool.SEEDS]
    plan = plans[TODAY % len(plans)]
    _, rows = grow.grow(plan, progress=False)
    found = end_of(rows)
    cell = pd.DataFrame({seed: end_of(of(replace(plan, seed=seed), table)) for seed in tool.SEEDS})
    # Another processor adds in another order, and a training carries that far: so the seeds' spread is the measure.
    spread = cell.std(axis=1, ddof=1)
    away = ((found - cell.mean(axis=1)).abs() / spread.clip(lower=0.02))[found.index]
    told = ["similarity", "retrieval", "transfer", "knows", "push", "own push", "mass A", "mass B", "says A", "says B"]
    assert away[told].mean() < 2, (plan, TODAY)
    assert away[told].max() < 8, (plan, TODAY)


def test_the_weights_that_come_with_the_book_are_those_of_the_table(table):
    for plan in tool.WITH_WEIGHTS:
        lm = grow.load(plan)
        last = of(plan, table)
        last = last[last["step"] == plan.steps].set_index(["measure", "asked", "layer"])["value"]
        again = grow.measure(lm, plan.world).set_index(["measure", "asked", "layer"])["value"]
        for name in ("similarity", "mass A", "mass B"):
            assert again[name].to_numpy() == pytest.approx(last[name][again[name].index].to_numpy(), abs=0.01)
        for asked in "AB":
            assert again["knows", asked, -1] == pytest.approx(last["knows", asked, -1], abs=0.02)
    with pytest.raises(FileNotFoundError, match=r"no weights of .* come with the book: grow it"):
        grow.load(Plan(seed=0))


@pytest.fixture
def small(monkeypatch, tmp_path):
    monkeypatch.setattr(tool, "plans", lambda: SMALL)
    monkeypatch.setattr(tool, "WITH_WEIGHTS", tuple(SMALL[:1]))
    monkeypatch.setattr(grow, "_CHECKS", 2)  # most of their time is being measured
    return tmp_path


def test_a_run_that_is_killed_goes_on_to_the_same_table(small, monkeypatch):
    for name in ("whole", "cut"):
        (small / name).mkdir()
    whole = tool.table((plan, tool.grown(plan, small / "whole")) for plan in SMALL)
    batch = grow.batch

    def killed(plan, step):
        if plan.seed == 2 and step == 5:
            raise KeyboardInterrupt
        return batch(plan, step)

    monkeypatch.setattr(grow, "batch", killed)
    tool.grown(SMALL[0], small / "cut")
    with pytest.raises(KeyboardInterrupt):
        tool.grown(SMALL[1], small / "cut")
    assert len(list((small / "cut").glob("*.csv"))) == 1
    assert len(list((small / "cut").glob("*.pt"))) == 1
    shown = []
    monkeypatch.setattr(grow, "batch", lambda plan, step: shown.append((plan.seed, step)) or batch(plan, step))
    again = tool.table((plan, tool.grown(plan, small / "cut")) for plan in SMALL)
    assert shown == [(2, 4), (2, 5), (2, 6), (2, 7)]  # the first is not grown again, the second goes on from the middle
    pd.testing.assert_frame_equal(again, whole, check_exact=True)
    assert list((small / "cut").glob("*.pt")) == []


def test_the_table_carries_every_value(small):
    rows = tool.grown(SMALL[0], small)
    wide = tool.table([(SMALL[0], rows)])
    long = wide.melt([*MODEL, "step", "asked", "layer"], var_name="measure", value_name="value").dropna()
    index = ["measure", "asked", "layer", "step"]
    one, other = (frame.set_index(index)["value"].sort_index() for frame in (rows, long))
    assert np.array_equal(one.to_numpy(), other.to_numpy())
    assert one.index.equals(other.index)
