"""The tables of the long control run are what the code gives: cells drawn anew each day are computed again."""

import numpy as np
import pandas as pd
import pytest

import steering_controls as tool
from semhub_utils.data.controls import made_by, steering_table
from today import TODAY


def drawn(table, n):
    return [row for _, row in table.sample(n, random_state=TODAY).iterrows()]


@pytest.fixture(scope="module")
def tables():
    return {name: steering_table(name) for name in ("layers", "frontier", "controls")}


def test_the_tables_are_of_this_model_these_prompts_and_this_tool(embedded_lm):
    assert made_by()["key"] == tool.key(embedded_lm), "run tools/steering_controls.py and commit its tables"
    assert made_by()["revision"] == embedded_lm.spec.revision
    assert steering_table("controls", embedded_lm.spec.revision) is not None
    assert steering_table("controls", "another") is None
    with pytest.raises(ValueError, match="name is 'choice': the tables are layers, frontier, controls"):
        steering_table("choice")


def test_seven_cells_of_the_controls(embedded_lm, tables):
    for row in drawn(tables["controls"], 7):
        name = f"{row.kind}: {row.vector}"
        vectors = tool.controls(embedded_lm, [name], int(row.layer))
        found = tool.effects(embedded_lm, vectors, row.language, "judge", row.strength).iloc[0]
        assert found.tolist() == pytest.approx(row[["plus", "minus", "effect"]].tolist(), abs=0.02), (name, TODAY)


def test_four_cells_of_the_layers(embedded_lm, tables):
    for row in drawn(tables["layers"], 4):
        found = tool.effects(
            embedded_lm, {"": tool.english(embedded_lm, row.layer)}, row.language, "choose", row.strength
        )
        assert found["effect"].iloc[0] == pytest.approx(row.effect, abs=0.02), (row.language, row.layer, TODAY)


def test_a_cell_of_the_frontier(embedded_lm, tables):
    for row in drawn(tables["frontier"], 1):
        found = tool.frontier_row(embedded_lm, row.language, row.layer, row.strength, row.split)
        for name in ("plus", "minus", "effect"):
            assert found[name] == pytest.approx(row[name], abs=0.02), (name, TODAY)
        # The likeliest token may be another on another processor where two are as good as even.
        for name in ("kept_plus", "kept_minus", "cost_plus", "cost_minus", "relevance_plus", "relevance_minus"):
            assert found[name] == pytest.approx(row[name], abs=0.1), (name, TODAY)


def test_the_choices_follow_from_the_tables(tables):
    layers, frontier = tables["layers"], tables["frontier"]
    for language, rows in layers.groupby("language"):
        assert rows[rows.chosen].layer.tolist() == [tool.best_layer(rows)]
        tried = frontier[(frontier.language == language) & (frontier.split == "choose")]
        assert set(tried.layer) == {tool.best_layer(rows)}
        best = tool.best_strength(tried)
        assert tried[tried.chosen].strength.tolist() == ([] if best is None else [best])
        judged = frontier[(frontier.language == language) & (frontier.split == "judge")]
        assert judged.strength.tolist() == ([] if best is None else [best])
        assert judged.n.tolist() == ([] if best is None else [40])


def test_every_language_has_all_its_controls(tables):
    kinds = tables["controls"].groupby(["language", "kind"]).size().unstack()
    assert kinds.drop(columns=["own", "unembedding"]).to_dict("list") == {
        "English": [1] * len(kinds),
        "random": [50] * len(kinds),
        "unrelated": [20] * len(kinds),
    }
    found = tables["controls"]
    np.testing.assert_allclose(found["effect"], (found["plus"] - found["minus"]) / 2, atol=2e-4)


def test_the_rule_takes_the_largest_strength_that_reads_well():
    rows = pd.DataFrame({"strength": [0.1, 0.2, 0.3], "kept_plus": [1, 0.9, 1], "kept_minus": [1, 0.9, 0.8]})
    rows = rows.assign(cost_plus=[0.1, 0.2, 0.3], cost_minus=[0.0, 0.4, 0.1], effect=[1, 2, 9], spread=[0.5, 1.1, 1])
    assert tool.best_strength(rows) == 0.2
    assert tool.best_strength(rows.assign(spread=[0.5, 1.2, 1])) == 0.1
    assert tool.best_strength(rows.assign(cost_minus=0.41)) is None
    assert tool.best_layer(pd.DataFrame({"layer": [3, 5, 7], "effect": [1, 3, 4], "spread": [1, 1, 2]})) == 5


def test_continuations_are_counted_in_their_language():
    texts = ["un poco triste pero muy bonita", "a little sad but very nice", "12 34", "muy interesante y divertida"]
    assert tool.share_kept(texts, "es") == 0.5
