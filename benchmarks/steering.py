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

    def swept() -> object:
        return sh.sweep(lm, vectors, texts, STRENGTHS, max_new_tokens=TOKENS, progress=False)

    def bare() -> None:
        rows = texts * len(STRENGTHS)
        for _ in LAYERS:
            for start in range(0, len(rows), 64):
                inputs = lm.pad(lm.token_ids(rows[start : start + 64]), side="left")
                inputs.pop("position_ids", None)
                lm.model.generate(**inputs, max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False)

    def alone() -> None:
        for vector, strength, text in cells[::10]:
            with sh.steer(lm, vector, strength):
                lm.generate(text, max_new_tokens=TOKENS)

    def odds() -> object:
        return sh.sweep(lm, vectors, texts, STRENGTHS, WORDS, max_new_tokens=0, progress=False)

    def odds_whole() -> None:
        for vector in vectors.values():
            for strength in STRENGTHS:
                with sh.steer(lm, vector, strength):
                    sh.log_odds(lm, texts, *WORDS)

    lm.generate(texts[:2], max_new_tokens=2)  # brings in every weight
    with torch.no_grad():
        took = {name.__name__: timed(name) for name in (swept, bare, alone, odds, odds_whole)}
    took["alone"] *= 10
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(f"{versions}, {torch.get_num_threads()} threads, {platform.machine()}, {lm}\n")
    print("| sweep of 700 cells | seconds | times the bare work | allowed |")
    print("|---|---|---|---|")
    print(f"| sweep, {TOKENS} tokens each | {took['swept']:.0f} | {took['swept'] / took['bare']:.2f} | 360 s |")
    print(f"| the bare work: generate in batches, no hook | {took['bare']:.0f} | 1.00 | |")
    print(f"| steered and generated one at a time | {took['alone']:.0f} | {took['alone'] / took['bare']:.2f} | |")
    print(f"| sweep, log-odds of the next word only | {took['odds']:.1f} | {took['odds'] / took['odds_whole']:.2f} | |")
    print(f"| the same by whole passes | {took['odds_whole']:.1f} | 1.00 | |")


if __name__ == "__main__":
    main()
