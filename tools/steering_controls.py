"""Choose a layer and a strength for each language, and judge steering there against 70 control vectors.

Run: `python tools/steering_controls.py` (about an hour on two cores; what is finished is kept in the cache, and a
second call goes on from there). It writes the two tables that `sh.data.controls` reads, and the key of what made
them. A test recomputes cells of both, drawn at random.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd

import semhub_utils as sh
from semhub_utils import cache
from semhub_utils.data import prompts

DATA = Path(sh.data.__file__).parent
LANGUAGES = ("es", "zh", "fr", "de", "hi")
LAYERS = (8, 9, 10, 11, 12, 13, 15)
STRENGTHS = (0.03, 0.05, 0.075, 0.1)
CHOOSING, JUDGING = range(1000, 1010), range(50)  # seeds of the random vectors, not the same for both
NEW_TOKENS = 12
# Stricter than what is asked of the 40 prompts that judge (0.8 and 0.5), since 20 say it less surely.
KEPT, COST = 0.85, 0.4


def english(lm: sh.LanguageModel, layer: int) -> sh.SteeringVector:
    """The vector under test: English good minus bad."""
    return sh.steering_vector(lm, *zip(*prompts.pairs("en"), strict=True), layer)


def controls(lm: sh.LanguageModel, language: str, layer: int) -> dict[str, sh.SteeringVector]:
    """What the English vector is held against, all pushing equally hard, by `kind: name`."""
    tested = english(lm, layer)
    good, bad = prompts.verdicts("en")
    found = {"English: good - bad": tested}
    found[f"own: {language}"] = sh.steering_vector(lm, *zip(*prompts.pairs(language), strict=True), layer)
    found["unembedding: good - bad"] = sh.steering_vector(lm, good, bad, layer, method="unembedding")
    found |= {f"random: {seed}": sh.random_vector(tested, seed) for seed in JUDGING}
    for name, pairs in prompts.contrasts().items():
        found[f"unrelated: {name}"] = sh.steering_vector(lm, *zip(*pairs, strict=True), layer)
    return {name: replace(vector, scale=tested.scale) for name, vector in found.items()}


def asked(language: str, split: str) -> list[str]:
    """The prompts of a language that choose, or those that judge."""
    return prompts.prompts([language], split)[language].tolist()


def effects(
    lm: sh.LanguageModel, vectors: dict[str, sh.SteeringVector], language: str, split: str, strength: float
) -> pd.DataFrame:
    """`plus`, `minus` and `effect` of each vector, means over the prompts, in nats."""
    words = prompts.verdicts(language)
    frame = sh.sweep(
        lm, vectors, asked(language, split), [-strength, 0.0, strength], words, max_new_tokens=0, progress=False
    )
    mean = frame.groupby(["vector", "strength"], sort=False)["log_odds"].mean().unstack()
    plus, minus = mean[strength] - mean[0.0], mean[-strength] - mean[0.0]
    return pd.DataFrame({"plus": plus, "minus": minus, "effect": (plus - minus) / 2}).loc[list(vectors)]


def readable(lm: sh.LanguageModel, language: str, layer: int, strength: float, split: str) -> dict[str, float]:
    """`kept` and `cost` of the English vector: the worse of the two signs."""
    texts = asked(language, split)
    signs = [-strength, 0.0, strength]
    frame = sh.sweep(lm, [english(lm, layer)], texts, signs, max_new_tokens=NEW_TOKENS, progress=False)
    written = {s: frame[frame["strength"] == s]["continuation"].tolist() for s in signs}
    loss = {s: float(sh.log_loss(lm, texts, written[s], progress=False).nanmean()) for s in signs}
    kept = {s: share_kept(written[s], language) for s in signs}
    return {
        "kept": min(kept[-strength], kept[strength]),
        "cost": max(loss[-strength], loss[strength]) - loss[0.0],
    }


def share_kept(texts: list[str], language: str) -> float:
    """The share of texts that are in the language, out of the five and English."""
    return sum(code == language for code in sh.identify(texts, ["en", *LANGUAGES])) / len(texts)


def choice_row(lm: sh.LanguageModel, language: str, layer: int, strength: float) -> dict:
    """One cell of the grid on the prompts that choose."""
    tested = english(lm, layer)
    vectors = {"English": tested} | {str(seed): sh.random_vector(tested, seed) for seed in CHOOSING}
    found = effects(lm, vectors, language, "choose", strength)["effect"]
    row = {"language": language, "layer": layer, "strength": strength, "effect": found["English"]}
    return row | {"spread": found.drop("English").std()} | readable(lm, language, layer, strength, "choose")


def choose(grid: pd.DataFrame) -> pd.DataFrame:
    """Mark each language's cell: of those that stay readable the one farthest above random vectors."""
    grid = grid.assign(chosen=False)
    for _, rows in grid.groupby("language"):
        fine = rows[(rows["kept"] >= KEPT) & (rows["cost"] <= COST)]
        if len(fine):
            grid.loc[(fine["effect"] / fine["spread"]).idxmax(), "chosen"] = True
    return grid


def judged(lm: sh.LanguageModel, language: str, layer: int, strength: float) -> pd.DataFrame:
    """Every vector at the place that was chosen, on the prompts that judge."""
    found = effects(lm, controls(lm, language, layer), language, "judge", strength)
    names = [name.partition(": ") for name in found.index]
    found.insert(0, "language", language)
    found.insert(1, "kind", [kind for kind, _, _ in names])
    found.insert(2, "vector", [vector for _, _, vector in names])
    found.insert(3, "layer", layer)
    found.insert(4, "strength", strength)
    return found.reset_index(drop=True)


def key(lm: sh.LanguageModel) -> str:
    """Over the prompts and words, this tool and the model; the code of the module is held by the cells recomputed."""
    code = [Path(__file__), DATA / "prompts.py", *sorted(DATA.glob("*prompts*.tsv")), *DATA.glob("*pairs*.tsv")]
    return cache.key({}, code=[*code, DATA / "contrasts.tsv"], model=f"{lm.spec.name} {lm.spec.revision}")


def kept_rows(lm: sh.LanguageModel) -> Path:
    """Where finished cells lie between two calls."""
    return cache.root() / "steering-controls" / f"{key(lm)}.json"


def main() -> None:
    """Make what is not made yet, and write the tables."""
    lm = sh.load("gemma-3-270m")
    store = kept_rows(lm)
    done = json.loads(store.read_text(encoding="utf-8")) if store.exists() else {}
    cells = [(la, k, s) for k in LAYERS for s in STRENGTHS for la in LANGUAGES]
    for number, cell in enumerate(cells, 1):
        if str(cell) not in done:
            done[str(cell)] = choice_row(lm, *cell)
            cache.write_text(store, json.dumps(done))
        print(f"{number} of {len(cells)}:", *(f"{k} {v}" for k, v in done[str(cell)].items()), file=sys.stderr)
    grid = choose(pd.DataFrame([done[str(cell)] for cell in cells]))
    places = grid[grid["chosen"]].set_index("language")
    table = pd.concat([judged(lm, la, int(r["layer"]), float(r["strength"])) for la, r in places.iterrows()])
    for name, frame in (("choice", grid), ("controls", table)):
        cache.write_text(DATA / f"steering_{name}.csv", frame.round(4).to_csv(index=False))
    made = {"key": key(lm), "model": lm.spec.name, "revision": lm.spec.revision, "new_tokens": NEW_TOKENS}
    cache.write_text(DATA / "steering_key.json", json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
