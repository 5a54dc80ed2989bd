"""How well pictures of concepts never trained on are read through each projector, at every layer.

Run: `python tools/judge_projectors.py` (a minute on two cores), after `tools/train_projectors.py`. It writes the tables
that `semhub_utils/data/controls.py` reads; a test recomputes a part of them.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd

import semhub_utils as sh
from semhub_utils import cache, stitched
from semhub_utils.data.images import pictures, things
from semhub_utils.picture_lens import word_ranks, word_scores

DATA = Path(sh.data.__file__).parent


def held_out(split: str) -> pd.DataFrame:
    """One picture, OpenMoji's, of each concept of a split."""
    frame = pictures(["openmoji"])
    return frame[frame["split"] == split].reset_index(drop=True)


def ranks(lm: sh.LanguageModel, frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """The rank of each picture's own noun among all nouns, (pictures, layers), 0 the best: "plain" and "centred".

    `lm` is the language model with the eyes that are judged.
    """
    nouns = things()["noun"].tolist()
    examples = [sh.Example(image=file) for file in frame["file"]]
    scores = word_scores(lm, examples, [f" {noun}" for noun in nouns], progress=False)
    gold = [nouns.index(concept) for concept in frame["concept"]]
    return {measure: word_ranks(scores, gold, measure == "centred").numpy() for measure in ("plain", "centred")}


def rows(found: dict[str, np.ndarray], name: str, split: str) -> pd.DataFrame:
    """The median rank at every layer with its 95% interval over the concepts, and the share among the first ten."""
    frames = []
    for measure, places in found.items():
        draws = np.random.default_rng(0).integers(len(places), size=(2000, len(places)))
        low, high = np.quantile(np.median(places[draws], axis=1), [0.025, 0.975], axis=0)
        columns = {"median": np.median(places, axis=0), "low": low, "high": high, "top10": (places < 10).mean(0)}
        where = {"projector": name, "split": split, "measure": measure, "layer": np.arange(places.shape[1])}
        frames.append(pd.DataFrame({**where, "n": len(places), **columns}))
    return pd.concat(frames)


def key(lm: sh.LanguageModel) -> str:
    """Over the weights of all projectors, the nouns and their split, this tool and the model."""
    weights = [stitched.projector_file(name) for name in stitched.PROJECTORS]
    return cache.key(things().to_csv(), code=[Path(__file__), *weights], model=lm.spec.revision)


def main() -> None:
    """Judge all projectors and write the tables."""
    lm = sh.load("gemma-3-270m")
    halves = {split: held_out(split) for split in ("validation", "test")}
    found: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    for name in stitched.PROJECTORS:
        seeing = stitched.stitch(lm, name)
        found |= {(name, split): ranks(seeing, frame) for split, frame in halves.items()}
    table = pd.concat([rows(one, *where) for where, one in found.items()])
    # The layer of each is the one where its own validation concepts are read best, controls too.
    judged = table[table["split"] == "validation"].reset_index(drop=True)
    best = judged.loc[judged.groupby(["projector", "measure"])["median"].idxmin()]
    chosen = best.set_index(["projector", "measure"])["layer"].to_dict()
    table["chosen"] = [chosen[row.projector, row.measure] == row.layer for row in table.itertuples()]
    single = pd.concat(
        [
            pd.DataFrame({"projector": name, "measure": measure, "concept": halves["test"]["concept"]}).assign(
                rank=found[name, "test"][measure][:, chosen[name, measure]]
            )
            for name, measure in chosen
        ]
    )
    cache.write_text(DATA / "projectors.csv", table.round(3).to_csv(index=False))
    cache.write_text(DATA / "projector_ranks.csv", single.to_csv(index=False))
    made = {"key": key(lm), "model": lm.spec.name, "revision": lm.spec.revision}
    cache.write_text(DATA / "projectors_key.json", json.dumps(made, indent=1) + "\n")
    print(table[table["chosen"]].to_string(index=False))


if __name__ == "__main__":
    main()
