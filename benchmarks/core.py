"""Speed and memory of hidden_states and logit_lens against the bare work, in one run.

    make bench

Each way of doing the work runs in a process of its own, and they take turns, so that a machine that is busy for a
while is busy for all of them; the best of the rounds counts (two on the small set, one on the large). Memory is the
highest resident size while the work ran, above what the process held with the model loaded and touched. It takes
about a quarter of an hour.
"""

import ctypes
import gc
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import threading
import time

import psutil
import torch
import torch.nn.functional as F
import transformers

import semhub_utils as sh
from semhub_utils import lens
from semhub_utils.data import words
from semhub_utils.states import batches

SIZES = (192, 1920)
BATCH = 32
TARGETS = {"en": " dog", "zh": "狗", "es": " perro"}


def make_texts(n: int) -> list[str]:
    """Lists of 2 to 8 names of things in 14 languages: as long as sentences, and the same on every machine.

    The larger set is the smaller one again and again, so that its longest batch is no longer and what is left to grow
    is what grows with the number of texts.
    """
    draw, nouns = random.Random(0), sorted(words()["word"])
    some = [" ".join(draw.choices(nouns, k=draw.randint(2, 8))) for _ in range(min(SIZES))]
    return (some * (n // len(some) + 1))[:n]


class Work:
    """Every way of doing the work, on the same texts and in the same batches."""

    def __init__(self, lm: sh.LanguageModel, n: int):
        self.lm, self.texts = lm, make_texts(n)
        tokens = lm.token_ids(self.texts)
        self.inputs = [lm.pad([tokens[row] for row in rows]) for rows in batches(tokens, BATCH, False)]

    def hidden_states(self) -> None:
        """Ours: last-token states of every layer."""
        self.result = sh.hidden_states(self.lm, self.texts, batch_size=BATCH, progress=False)

    @torch.no_grad()
    def base_model(self) -> None:
        """The bare work: the blocks alone, nothing kept."""
        for inputs in self.inputs:
            self.lm.model.base_model(**inputs, use_cache=False)

    @torch.no_grad()
    def output_hidden_states(self) -> None:
        """transformers' own way without logits: `model.model(..., output_hidden_states=True)`."""
        for inputs in self.inputs:
            kept = self.lm.model.model(**inputs, output_hidden_states=True, use_cache=False)
            self.result = torch.stack([h[:, -1] for h in kept.hidden_states], 1)

    @torch.no_grad()
    def full_logits(self) -> None:
        """What many scripts do: the whole model with all logits, and the hidden states."""
        for inputs in self.inputs:
            kept = self.lm.model(**inputs, output_hidden_states=True, use_cache=False)
            self.result = torch.stack([h[:, -1] for h in kept.hidden_states], 1)

    def logit_lens(self) -> None:
        """Ours: three targets at the last token, every layer."""
        self.result = sh.logit_lens(self.lm, self.texts, TARGETS, batch_size=BATCH, progress=False)

    @torch.no_grad()
    def chunked_product(self) -> None:
        """The bare work of the lens: the blocks, the norm, the product in chunks and its logsumexp."""
        head = self.lm.head.weight
        for inputs in self.inputs:
            kept = self.lm.model.base_model(**inputs, output_hidden_states=True, use_cache=False).hidden_states
            states = torch.cat([*(self.lm.final_norm(h[:, -1]) for h in kept[:-1]), kept[-1][:, -1]])
            chunk = lens._PAIRS // len(states)
            parts = [F.linear(states, head[i : i + chunk]).logsumexp(1) for i in range(0, len(head), chunk)]
            self.result = torch.stack(parts).logsumexp(0)


STATES = ("hidden_states", "base_model", "output_hidden_states", "full_logits")
LENS = ("logit_lens", "chunked_product")
BARE = dict.fromkeys(STATES, "base_model") | dict.fromkeys(LENS, "chunked_product")
ALLOWED = {"hidden_states": "1.10", "logit_lens": "1.30"}


def measure(name: str, n: int) -> dict[str, float]:
    """The child's side: seconds and peak MiB of one way, in a process whose model was touched from end to end."""
    work = Work(sh.load(), n)
    work.lm("a")  # brings in every weight, the unembedding with them
    small = Work(work.lm, BATCH)
    getattr(small, name)()
    del small
    gc.collect()
    # What the loading has freed goes back to the system: otherwise the work fills it unseen.
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    process, done, peak = psutil.Process(), threading.Event(), 0

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.01):
            peak = max(peak, process.memory_info().rss)

    before = process.memory_info().rss
    thread = threading.Thread(target=watch)
    thread.start()
    start = time.perf_counter()
    getattr(work, name)()
    seconds = time.perf_counter() - start
    done.set()
    thread.join()
    return {"seconds": seconds, "mib": (peak - before) / 2**20}


def in_new_process(name: str, n: int) -> dict[str, float]:
    """`measure` in a fresh process."""
    command = [sys.executable, __file__, "--measure", name, str(n)]
    # glibc then gives memory back as soon as it is freed, and the same work peaks at the same size twice.
    malloc = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | malloc)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure and print."""
    lm = sh.load()
    print(
        f"torch {torch.__version__}, transformers {transformers.__version__}, {torch.get_num_threads()} threads, ",
        end="",
    )
    print(f"{platform.machine()}, {lm}\n")
    print("| way | texts | seconds | times the bare work | allowed | peak MiB above the model | returned MiB |")
    print("|---|---|---|---|---|---|---|")
    array = {n: n * (lm.n_layers + 1) * lm.d_model * 4 / 2**20 for n in SIZES}
    peak: dict[tuple[str, int], float] = {}
    for n in SIZES:
        rounds = [{name: in_new_process(name, n) for name in BARE} for _ in range(2 if n == min(SIZES) else 1)]
        seconds = {name: min(one[name]["seconds"] for one in rounds) for name in BARE}
        for name, bare in BARE.items():
            peak[name, n] = statistics.median(one[name]["mib"] for one in rounds)
            returned = f"{array[n]:.0f}" if name == "hidden_states" else ""
            row = [name, n, f"{seconds[name]:.2f}", f"{seconds[name] / seconds[bare]:.2f}", ALLOWED.get(name, "")]
            print(f"| {' | '.join(map(str, row))} | {peak[name, n]:.0f} | {returned} |", flush=True)
    small, large = (peak["hidden_states", n] - array[n] for n in SIZES)
    print(f"\nhidden_states: {large:.0f} MiB above the model and the returned array on {SIZES[1]} texts, ", end="")
    print(f"{large / small:.2f} times the {small:.0f} MiB on {SIZES[0]}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(sys.argv[2], int(sys.argv[3]))))
    else:
        main()
