"""Speed and memory of hidden_states and logit_lens against the bare work, in one run.

    make bench

Each way of doing the work runs in turn, so that a machine that is busy for a while is busy for all of them; the
best of the rounds counts. Memory is taken in a process of its own for each row: the highest resident size while the
work ran, above what the loaded model holds.
"""

import gc
import json
import platform
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable

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
    """Lists of 2 to 8 names of things in 14 languages: as long as sentences, and the same on every machine."""
    draw, nouns = random.Random(0), sorted(words()["word"])
    return [" ".join(draw.choices(nouns, k=draw.randint(2, 8))) for _ in range(n)]


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


def seconds(work: Work, names: tuple[str, ...], rounds: int) -> dict[str, float]:
    """The best time of each way, all of them taking turns."""
    best = dict.fromkeys(names, float("inf"))
    for _ in range(rounds):
        for name in names:
            start = time.perf_counter()
            getattr(work, name)()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def peak_mb(work: Callable[[], object]) -> float:
    """The highest resident size while `work` runs, above what it was before, in MiB."""
    process, done, peak = psutil.Process(), threading.Event(), 0

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, process.memory_info().rss)

    gc.collect()
    before = process.memory_info().rss
    thread = threading.Thread(target=watch)
    thread.start()
    work()
    done.set()
    thread.join()
    return (peak - before) / 2**20


def memory_in_new_process(name: str, n: int) -> float:
    """`peak_mb` of one way, in a fresh process whose model has been touched from end to end."""
    command = [sys.executable, __file__, "--memory", name, str(n)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def measure_memory(name: str, n: int) -> None:
    """The child's side of `memory_in_new_process`."""
    work = Work(sh.load(), n)
    work.lm("a")  # brings in every weight, the unembedding with them
    print(json.dumps(peak_mb(getattr(work, name))))


def row(name: str, n: int, took: float, against: float, memory: float, limit: str = "") -> None:
    """Print one line of the table."""
    print(f"| {name} | {n} | {took:.2f} | {took / against:.2f} | {memory:.0f} | {limit} |", flush=True)


def main() -> None:
    """Measure and print."""
    lm = sh.load()
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {torch.get_num_threads()} threads, ")
    print(f"{platform.machine()}, {lm}\n")
    print("| way | texts | seconds | times the bare work | peak MiB above the model | allowed |")
    print("|---|---|---|---|---|---|")
    array = {n: n * (lm.n_layers + 1) * lm.d_model * 4 / 2**20 for n in SIZES}
    flat: dict[str, list[float]] = {"hidden_states": [], "logit_lens": []}
    for n in SIZES:
        work, rounds = Work(lm, n), 3 if n < 1000 else 2
        work.base_model()
        took = seconds(work, STATES[:-1], rounds) | seconds(work, STATES[-1:], 1)
        memory = {name: memory_in_new_process(name, n) for name in STATES}
        flat["hidden_states"].append(memory["hidden_states"] - array[n])
        for name in STATES:
            row(name, n, took[name], took["base_model"], memory[name], "1.10" if name == "hidden_states" else "")
        took = seconds(work, LENS, rounds)
        memory = {name: memory_in_new_process(name, n) for name in LENS}
        flat["logit_lens"].append(memory["logit_lens"])
        for name in LENS:
            row(name, n, took[name], took["chunked_product"], memory[name], "1.30" if name == "logit_lens" else "")
    print()
    for name, (small, large) in flat.items():
        print(
            f"{name}: peak of {large:.0f} MiB on {SIZES[1]} texts, {large / small:.2f} times that on {SIZES[0]}", end=""
        )
        print(", the returned array aside" if name == "hidden_states" else "")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        measure_memory(sys.argv[2], int(sys.argv[3]))
    else:
        main()
