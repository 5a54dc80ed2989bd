"""Grow every model of the table of `origins/grow-your-own-hub`, five seeds a cell, and write the table and its key.

Run: `python tools/grow_hubs.py` (about an hour on two cores, a model on each; `--device cuda` on a
GPU). Each training is kept as it goes, in the cache: what is killed goes on where it was, to the same numbers. A test
grows one of them again, another one each day.
"""

import argparse
import json
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import save
from tqdm import tqdm

import semhub_utils as sh
from semhub_utils import cache, grow
from semhub_utils.grow import Plan

DATA = Path(sh.data.__file__).parent
SEEDS = range(10, 15)  # those below were tried while the sizes and the steps were chosen
FRESH = range(20, 30)  # of 80:20 and its swap: five seeds did not settle whether the larger language leads
SHARES, PARALLEL, WIDTHS, LONGER = (0.5, 0.8, 0.95), (0.5, 0.0), (32, 128), 4800
WITH_WEIGHTS = (Plan(), Plan(swapped=True))  # for the chapter that asks which language dominates


def plans() -> list[Plan]:
    """Every model of the table: shares, parallel or not, swapped; two widths; more steps; fresh seeds."""
    cells = [
        Plan(share, parallel, swapped)
        for parallel in PARALLEL
        for share in SHARES
        for swapped in ((False, True) if share > 0.5 else (False,))
    ]
    cells += [*(Plan(width=width) for width in WIDTHS), Plan(steps=LONGER)]
    again = [Plan(swapped=swapped, seed=seed) for swapped in (False, True) for seed in FRESH]
    return [replace(cell, seed=seed) for cell in cells for seed in SEEDS] + again


def key() -> str:
    """Over plans, first texts of each cell and settings; the code is held by the models that are grown again."""
    texts = [grow.batch(plan, 0).tolist() for plan in plans() if plan.seed == SEEDS[0]]
    settings = [grow.DOCUMENTS, grow.SENTENCES, grow.RATE, grow.WARM_UP, grow.DECAY]
    return cache.key([[asdict(plan) for plan in plans()], texts, settings])


def grown(plan: Plan, folder: Path, device: str = "cpu") -> pd.DataFrame:
    """The rows of one model, made once; a training that was stopped goes on. Its weights are kept beside, in 16 bit."""
    name = cache.key(asdict(plan))
    made, kept = folder / f"{name}.csv", folder / f"{name}.safetensors"
    if not made.is_file() or (plan in WITH_WEIGHTS and not kept.is_file()):
        lm, rows = grow.grow(plan, folder / f"{name}.pt", device, progress=False)
        halves = {name: value.half() for name, value in lm.model.state_dict().items() if name != "lm_head.weight"}
        cache.write_bytes(kept, save(halves))
        cache.write_text(made, rows.to_csv(index=False))
        (folder / f"{name}.pt").unlink()
    return pd.read_csv(made)


def table(made: Iterable[tuple[Plan, pd.DataFrame]]) -> pd.DataFrame:
    """One row for each model, step, language that is asked and layer, with a column for each measure."""
    parts = []
    for plan, rows in made:
        wide = rows.pivot_table(index=["step", "asked", "layer"], columns="measure", values="value").reset_index()
        told = {name: value for name, value in asdict(plan).items() if name != "blocks"}
        parts.append(pd.concat([pd.DataFrame([told] * len(wide)), wide], axis=1))
    return pd.concat(parts, ignore_index=True)


def main() -> None:
    """Grow what is not grown yet, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help='such as "cuda"')
    parser.add_argument("--jobs", type=int, default=2, help="models at once")
    given = parser.parse_args()
    folder = cache.root() / "grown" / key()
    folder.mkdir(parents=True, exist_ok=True)
    every = plans()
    with ProcessPoolExecutor(given.jobs) as pool:
        waiting = [pool.submit(grown, plan, folder, given.device) for plan in every]
        for one in tqdm(as_completed(waiting), total=len(waiting), desc="models"):
            one.result()
    wide = table((plan, grown(plan, folder, given.device)) for plan in every)
    cache.write_text(DATA / "grown.csv", wide.round(3).to_csv(index=False))
    for plan in WITH_WEIGHTS:
        cache.write_bytes(grow.weights(plan), (folder / grow.weights(plan).name.removeprefix("grown-")).read_bytes())
    made = {"key": key(), "torch": torch.__version__, "device": given.device}
    cache.write_text(DATA / "grown_key.json", json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
