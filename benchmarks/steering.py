"""A steering sweep of 5 layers, 7 strengths, 20 prompts and 20 tokens, against the bare work and one at a time.

    make bench

The bare work generates as many tokens in batches of the same size without a hook. One at a time is what a script
does that steers and generates text by text; a tenth of it is run and counted ten times. The log-odds of the same
sweep are timed with the blocks below each layer resting, as `sweep` does it, and as whole passes.
"""

import platform
import time
from collections.abc import Callable

import torch
import transformers

import semhub_utils as sh
from semhub_utils.data.prompts import pairs, prompts, verdicts

LAYERS, STRENGTHS, TOKENS = (9, 11, 13, 15, 17), (-0.2, -0.1, -0.05, 0.0, 0.05, 0.1, 0.2), 20
WORDS = verdicts("es")


def timed(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    lm = sh.load()
    texts = prompts(["es"], "choose")["es"].tolist()
    sides = list(zip(*pairs("en"), strict=True))
    vectors = {str(k): sh.steering_vector(lm, *sides, k) for k in LAYERS}
    cells = [(vectors[str(k)], s, text) for k in LAYERS for s in STRENGTHS for text in texts]

    took: dict[str | None, float] = {}

    def swept() -> object:
        """sweep, 20 tokens each"""
        return sh.sweep(lm, vectors, texts, STRENGTHS, max_new_tokens=TOKENS, progress=False)

    def bare() -> None:
        """the bare work: generate in batches, no hook"""
        rows = texts * len(STRENGTHS)
        for _ in LAYERS:
            for start in range(0, len(rows), 64):
                inputs = lm.pad(lm.token_ids(rows[start : start + 64]), side="left")
                inputs.pop("position_ids", None)
                lm.model.generate(**inputs, max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False)

    def alone() -> None:
        """steered and generated one at a time"""
        for vector, strength, text in cells[::10]:
            with sh.steer(lm, vector, strength):
                lm.generate(text, max_new_tokens=TOKENS)

    def odds() -> object:
        """sweep, log-odds of the next word only"""
        return sh.sweep(lm, vectors, texts, STRENGTHS, WORDS, max_new_tokens=0, progress=False)

    def odds_whole() -> None:
        """the same log-odds by whole passes"""
        for vector in vectors.values():
            for strength in STRENGTHS:
                with sh.steer(lm, vector, strength):
                    sh.log_odds(lm, texts, *WORDS)

    lm.generate(texts[:2], max_new_tokens=2)  # brings in every weight
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(f"{versions}, {torch.get_num_threads()} threads, {platform.machine()}, {lm}\n")
    print("| sweep of 700 cells | seconds | times the bare work | allowed |")
    print("|---|---|---|---|")
    with torch.no_grad():
        for plain, ours, times in ((bare, swept, 1), (bare, alone, 10), (odds_whole, odds, 1)):
            if plain.__doc__ not in took:
                took[plain.__doc__] = timed(plain)
            base = took[plain.__doc__]
            seconds = times * timed(ours)
            limit = "360 s" if ours is swept else ""
            print(f"| {ours.__doc__} | {seconds:.1f} | {seconds / base:.2f} | {limit} |", flush=True)
    for name, seconds in took.items():
        print(f"| {name} | {seconds:.1f} | 1.00 | |")


if __name__ == "__main__":
    main()
