"""How well pictures of concepts never trained on are read through each projector, at every layer.

Run: `python tools/judge_projectors.py` (a minute on two cores), after `tools/train_projectors.py`. It writes the table
that `semhub_utils/data/controls.py` reads; a test recomputes a part of it.
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


def ranks(lm: sh.LanguageModel, name: str, frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """The rank of each picture's own noun among all nouns, (pictures, layers), 0 the best: "plain" and "centred"."""
    nouns = things()["noun"].tolist()
    examples = [sh.Example(image=file) for file in frame["file"]]
    scores = word_scores(stitched.stitch(lm, name), examples, [f" {noun}" for noun in nouns], progress=False)
    gold = [nouns.index(concept) for concept in frame["concept"]]
    return {measure: word_ranks(scores, gold, measure == "centred").numpy() for measure in ("plain", "centred")}


def rows(lm: sh.LanguageModel, name: str, split: str) -> pd.DataFrame:
    """The median rank at every layer with its 95% interval over the concepts, and the share among the first ten."""
    frames = []
    for measure, found in ranks(lm, name, held_out(split)).items():
        draws = np.random.default_rng(0).integers(len(found), size=(2000, len(found)))
        low, high = np.quantile(np.median(found[draws], axis=1), [0.025, 0.975], axis=0)
        columns = {"median": np.median(found, axis=0), "low": low, "high": high, "top10": (found < 10).mean(0)}
        where = {"projector": name, "split": split, "measure": measure, "layer": np.arange(found.shape[1])}
        frames.append(pd.DataFrame({**where, "n": len(found), **columns}))
    return pd.concat(frames)


def key(lm: sh.LanguageModel) -> str:
    """Over the weights of all projectors, the nouns and their split, this tool and the model."""
    weights = [stitched.projector_file(name) for name in stitched.PROJECTORS]
    return cache.key(things().to_csv(), code=[Path(__file__), *weights], model=lm.spec.revision)


def main() -> None:
    """Judge all projectors and write the table."""
    lm = sh.load("gemma-3-270m")
    table = pd.concat([rows(lm, name, split) for name in stitched.PROJECTORS for split in ("validation", "test")])
    # The layer of each is the one where its own validation concepts are read best, controls too.
    judged = table[table["split"] == "validation"].reset_index(drop=True)
    best = judged.loc[judged.groupby(["projector", "measure"])["median"].idxmin()]
    chosen = best.set_index(["projector", "measure"])["layer"].to_dict()
    table["chosen"] = [chosen[row.projector, row.measure] == row.layer for row in table.itertuples()]
    cache.write_text(DATA / "projectors.csv", table.round(3).to_csv(index=False))
    made = {"key": key(lm), "model": lm.spec.name, "revision": lm.spec.revision}
    cache.write_text(DATA / "projectors_key.json", json.dumps(made, indent=1) + "\n")
    print(table[table["chosen"]].to_string(index=False))


if __name__ == "__main__":
    main()
