"""Choose a layer and a strength for each language, and judge steering there against 70 control vectors.

Run: `python tools/steering_controls.py` (about half an hour on two cores; what is finished is kept in the cache, and
a second call goes on from there). It writes the tables that `semhub_utils/data/controls.py` reads, and the key of
what made them. A test recomputes cells of them, drawn at random.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

import semhub_utils as sh
from semhub_utils import cache
from semhub_utils.data.prompts import contrasts, pairs, prompts, verdicts

DATA = Path(sh.data.__file__).parent
LANGUAGES = ("es", "zh", "fr", "de", "hi")
LAYERS, SMALL = (7, 9, 10, 11, 12, 13), 0.025
STRENGTHS = (0.0125, 0.025, 0.05, 0.075, 0.1, 0.2, 0.3)
CHOOSING, JUDGING = range(1000, 1010), range(50)  # seeds of the random vectors, not the same for both
NEW_TOKENS = 12
# Stricter than what is asked of the 40 prompts that judge (0.8 and 0.5), since 20 say it less surely.
KEPT, COST = 0.85, 0.4


def of_pairs(lm: sh.LanguageModel, texts: list[tuple[str, str]], layer: int) -> sh.SteeringVector:
    """The steering vector of pairs, first minus second."""
    return sh.steering_vector(lm, [one for one, _ in texts], [other for _, other in texts], layer)


def english(lm: sh.LanguageModel, layer: int) -> sh.SteeringVector:
    """The vector under test: English good minus bad."""
    return of_pairs(lm, pairs("en"), layer)


def control_names(language: str) -> list[str]:
    """The English vector and what it is held against, each as `kind: name`."""
    first = ["English: good - bad", f"own: {language}", "unembedding: good - bad"]
    return first + [f"random: {seed}" for seed in JUDGING] + [f"unrelated: {name}" for name in contrasts()]


def controls(lm: sh.LanguageModel, names: list[str], layer: int) -> dict[str, sh.SteeringVector]:
    """The vectors of some of `control_names`, all pushing equally hard."""
    tested = english(lm, layer)
    found = {}
    for named in names:
        kind, _, name = named.partition(": ")
        if kind == "English":
            vector = tested
        elif kind == "random":
            vector = sh.random_vector(tested, int(name))
        elif kind == "unembedding":
            vector = sh.steering_vector(lm, *verdicts("en"), layer, method="unembedding")
        else:
            vector = of_pairs(lm, pairs(name) if kind == "own" else contrasts()[name], layer)
        found[named] = replace(vector, scale=tested.scale)
    return found


def asked(language: str, split: str) -> list[str]:
    """The prompts of a language that choose, or those that judge."""
    return prompts([language], split)[language].tolist()


def effects(
    lm: sh.LanguageModel, vectors: dict[str, sh.SteeringVector], language: str, split: str, strength: float
) -> pd.DataFrame:
    """`plus`, `minus` and `effect` of each vector, means over the prompts, in nats."""
    texts, words = asked(language, split), verdicts(language)
    frame = sh.sweep(lm, vectors, texts, [-strength, strength], words, max_new_tokens=0, progress=False)
    mean = frame.groupby(["vector", "strength"])["log_odds"].mean().unstack()
    resting = float(sh.log_odds(lm, texts, *words).mean())
    plus, minus = mean[strength] - resting, mean[-strength] - resting
    return pd.DataFrame({"plus": plus, "minus": minus, "effect": (plus - minus) / 2}).loc[list(vectors)]


def layer_row(lm: sh.LanguageModel, language: str, layer: int, strength: float = SMALL) -> dict:
    """How far the English vector reaches above random ones, on the prompts that choose."""
    tested = english(lm, layer)
    vectors = {"English": tested} | {str(seed): sh.random_vector(tested, seed) for seed in CHOOSING}
    found = effects(lm, vectors, language, "choose", strength)["effect"]
    spread = float((found.drop("English") ** 2).mean() ** 0.5)
    return {"language": language, "layer": layer, "strength": strength, "effect": found["English"], "spread": spread}


def frontier_row(lm: sh.LanguageModel, language: str, layer: int, strength: float, split: str) -> dict:
    """What the English vector moves at a strength, and what that costs, for either sign."""
    texts, vector = asked(language, split), english(lm, layer)
    moved = effects(lm, {"English": vector}, language, split, strength).iloc[0]
    row = {"language": language, "split": split, "layer": layer, "strength": strength, "n": len(texts), **moved}
    signs = {"plain": 0.0, "plus": strength, "minus": -strength}
    frame = sh.sweep(lm, [vector], texts, list(signs.values()), max_new_tokens=NEW_TOKENS, progress=False)
    written = {sign: frame[frame["strength"] == s]["continuation"].tolist() for sign, s in signs.items()}
    loss = {sign: float(sh.log_loss(lm, texts, new, progress=False).nanmean()) for sign, new in written.items()}
    for sign in ("plus", "minus"):
        row[f"kept_{sign}"] = share_kept(written[sign], language)
        row[f"cost_{sign}"] = loss[sign] - loss["plain"]
        row[f"relevance_{sign}"] = float(sh.relevance(lm, written[sign], written["plain"], layer).nanmean())
    return row


def share_kept(texts: list[str], language: str) -> float:
    """The share of texts that are in the language, out of the five and English."""
    return sum(code == language for code in sh.identify(texts, ["en", *LANGUAGES])) / len(texts)


def best_layer(rows: pd.DataFrame) -> int:
    """The layer of one language where the vector reaches farthest above random ones."""
    return int(rows.loc[(rows["effect"] / rows["spread"]).idxmax(), "layer"])


def readable(rows: pd.DataFrame) -> pd.Series:
    """At which strengths both signs stay readable."""
    kept, cost = rows[["kept_plus", "kept_minus"]].min(axis=1), rows[["cost_plus", "cost_minus"]].max(axis=1)
    return (kept >= KEPT) & (cost <= COST)


def best_strength(rows: pd.DataFrame) -> float | None:
    """The largest readable strength that is nine tenths as far above random vectors as the best; None without any.

    With strength the effect grows, and the damage that any push does grows faster.
    """
    fine = rows[readable(rows)]
    above = fine["effect"] / fine["spread"]
    return float(fine.loc[above >= 0.9 * above.max(), "strength"].max()) if len(fine) else None


def control_rows(lm: sh.LanguageModel, language: str, layer: int, strength: float) -> list[dict]:
    """Every vector at the place that was chosen, on the prompts that judge."""
    found = effects(lm, controls(lm, control_names(language), layer), language, "judge", strength)
    rows = []
    for name, moved in found.iterrows():
        kind, _, vector = str(name).partition(": ")
        rows.append({"language": language, "kind": kind, "vector": vector, "layer": layer, "strength": strength})
        rows[-1] |= {str(k): float(v) for k, v in moved.items()}
    return rows


def key(lm: sh.LanguageModel) -> str:
    """Over all prompts and words, this tool and the model; the code of the module is held by the cells recomputed."""
    texts = [prompts(["en", *LANGUAGES]).to_csv(), {la: [verdicts(la), pairs(la)] for la in ("en", *LANGUAGES)}]
    model = f"{lm.spec.name} {lm.spec.revision}"
    return cache.key([*texts, contrasts()], code=[Path(__file__)], model=model)


class Kept:
    """Finished cells, in a file of the cache between two calls."""

    def __init__(self, name: str):
        self.path = cache.root() / "steering-controls" / f"{name}.json"
        self.done = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {}

    def __call__(self, make: Callable, lm: sh.LanguageModel, *cell: Any) -> Any:
        """What `make(lm, *cell)` returns, made once."""
        name = f"{make.__name__} {cell}"
        if name not in self.done:
            self.done[name] = make(lm, *cell)
            cache.write_text(self.path, json.dumps(self.done))
            print(name, self.done[name] if isinstance(self.done[name], dict) else "done", file=sys.stderr)
        return self.done[name]


def main() -> None:
    """Make what is not made yet, and write the tables."""
    lm = sh.load("gemma-3-270m")
    kept = Kept(key(lm))
    layers = pd.DataFrame([kept(layer_row, lm, la, k) for la in tqdm(LANGUAGES, desc="layers") for k in LAYERS])
    layer_of = {la: best_layer(rows) for la, rows in layers.groupby("language")}
    layers["chosen"] = layers["layer"] == layers["language"].map(layer_of)
    cells = [(la, layer_of[la], s, "choose") for la in LANGUAGES for s in STRENGTHS]
    frontier = pd.DataFrame([kept(frontier_row, lm, *cell) for cell in tqdm(cells, desc="frontier")])
    rows = zip(cells, readable(frontier), strict=True)
    frontier["spread"] = [kept(layer_row, lm, *cell[:3])["spread"] if fine else None for cell, fine in tqdm(rows)]
    strength_of = {la: best_strength(rows) for la, rows in frontier.groupby("language")}
    frontier["chosen"] = frontier["strength"] == frontier["language"].map(strength_of)
    places = [(la, layer_of[la], s) for la in LANGUAGES if (s := strength_of[la]) is not None]
    judged = pd.DataFrame([kept(frontier_row, lm, *place, "judge") for place in places]).assign(chosen=True)
    tables = {
        "layers": layers,
        "frontier": pd.concat([frontier, judged]),
        "controls": pd.DataFrame(
            [r for place in tqdm(places, desc="controls") for r in kept(control_rows, lm, *place)]
        ),
    }
    for name, table in tables.items():
        cache.write_text(DATA / f"steering_{name}.csv", table.round(4).to_csv(index=False))
    made = {"key": key(lm), "model": lm.spec.name, "revision": lm.spec.revision, "new_tokens": NEW_TOKENS}
    cache.write_text(DATA / "steering_key.json", json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
