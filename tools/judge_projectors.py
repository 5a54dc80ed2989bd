"""How well what was never trained on is read through each projector, at every layer: pictures, and spoken words.

Run: `python tools/judge_projectors.py` (two minutes on two cores; with `audio`, those of sounds alone), after
`tools/train_projectors.py`. It writes the tables that `semhub_utils/data/controls.py` reads; a test recomputes a part
of them.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

import semhub_utils as sh
from semhub_utils import cache, stitched
from semhub_utils.data.images import pictures, splits, things
from semhub_utils.data.sounds import HELD_OUT, speak
from semhub_utils.data.words import words
from semhub_utils.picture_lens import word_ranks, word_scores

DATA = Path(sh.data.__file__).parent
# Of each kind, what its concepts are shown or said in; the first decides on which layer a projector is judged.
FORMS = {"image": ("openmoji",), "audio": ("en", "es", "fr", "de")}


def held_out(kind: str, split: str, form: str) -> pd.DataFrame:
    """One picture of each concept of a split, or its name, said in one language by the voice that was held out."""
    if kind == "image":
        frame = pictures([form])
        frame["example"] = [sh.Example(image=file) for file in frame["file"]]
        return frame[frame["split"] == split].reset_index(drop=True)
    frame = words([form])
    frame = frame[np.array(splits(frame["concept"])) == split].reset_index(drop=True)
    frame["example"] = [sh.Example(audio=speak(word, form, HELD_OUT)) for word in frame["word"]]
    return frame


def ranks(lm: sh.LanguageModel, kind: str, frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """The rank of each input's own English noun among all nouns, (inputs, layers), 0 the best: "plain" and "centred".

    `lm` is the language model with the eyes or ears that are judged.
    """
    nouns = things()["noun"].tolist()
    asked = [f" {noun}" for noun in nouns]
    scores = word_scores(lm, frame["example"].tolist(), asked, positions=kind, progress=False)
    gold = [nouns.index(concept) for concept in frame["concept"]]
    return {measure: word_ranks(scores, gold, measure == "centred").numpy() for measure in ("plain", "centred")}


def rows(found: dict[str, np.ndarray], name: str, split: str, form: str) -> pd.DataFrame:
    """The median rank at every layer with its 95% interval over the concepts, and the share among the first ten."""
    frames = []
    for measure, places in found.items():
        draws = np.random.default_rng(0).integers(len(places), size=(2000, len(places)))
        low, high = np.quantile(np.median(places[draws], axis=1), [0.025, 0.975], axis=0)
        columns = {"median": np.median(places, axis=0), "low": low, "high": high, "top10": (places < 10).mean(0)}
        where = {"projector": name, "split": split, "form": form, "measure": measure, "layer": np.arange(len(low))}
        frames.append(pd.DataFrame({**where, "n": len(places), **columns}))
    return pd.concat(frames)


def key(lm: sh.LanguageModel, kind: str) -> str:
    """Over the weights of all projectors, the nouns and their split, this tool and the model."""
    weights = [stitched.projector_file(name, kind) for name in stitched.PROJECTORS[kind]]
    return cache.key([kind, things().to_csv()], code=[Path(__file__), *weights], model=lm.spec.revision)


def judge(lm: sh.LanguageModel, kind: str) -> None:
    """Judge all projectors of a kind and write their tables."""
    inputs = {(split, form): held_out(kind, split, form) for split in ("validation", "test") for form in FORMS[kind]}
    found: dict[tuple[str, str, str], dict[str, np.ndarray]] = {}
    for name in stitched.PROJECTORS[kind]:
        meeting = stitched.stitch(lm, name, kind)
        found |= {(name, *where): ranks(meeting, kind, frame) for where, frame in inputs.items()}
    table = pd.concat([rows(one, *where) for where, one in found.items()])
    # The layer of each is the one where its own validation concepts are read best, controls too.
    judged = table[(table["split"] == "validation") & (table["form"] == FORMS[kind][0])].reset_index(drop=True)
    best = judged.loc[judged.groupby(["projector", "measure"])["median"].idxmin()]
    chosen = best.set_index(["projector", "measure"])["layer"].to_dict()
    table["chosen"] = [chosen[row.projector, row.measure] == row.layer for row in table.itertuples()]
    single = [
        pd.DataFrame(
            {"projector": name, "form": form, "measure": measure, "concept": inputs["test", form]["concept"]}
        ).assign(rank=found[name, "test", form][measure][:, layer])
        for (name, measure), layer in chosen.items()
        for form in FORMS[kind]
    ]
    cache.write_text(DATA / f"{kind}_projectors.csv", table.round(3).to_csv(index=False))
    cache.write_text(DATA / f"{kind}_projector_ranks.csv", pd.concat(single).to_csv(index=False))
    made = {"key": key(lm, kind), "model": lm.spec.name, "revision": lm.spec.revision}
    cache.write_text(DATA / f"{kind}_projectors_key.json", json.dumps(made, indent=1) + "\n")
    print(table[table["chosen"] & (table["split"] == "test")].to_string(index=False))


def main() -> None:
    """Judge the projectors of the kinds that the command line names, of all by default."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND")
    lm = sh.load("gemma-3-270m")
    for kind in parser.parse_args().kinds or stitched.PROJECTORS:
        judge(lm, kind)


if __name__ == "__main__":
    main()
