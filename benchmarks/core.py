"""Speed and memory of hidden_states and logit_lens against the bare work, in one run.

    make bench

Each way of doing the work runs in a process of its own, and they take turns, so that a machine that is busy for a
while is busy for all of them; the best of the rounds counts (two on the small set, one on the large). Memory is
counted apart, by memray: the most that was allocated at one time after the model was loaded. It counts every
allocation, torch's and Python's, so that the same work gives the same number; the resident size of one and the same
run wanders by tens of MiB. It takes about a quarter of an hour.
"""

import json
import platform
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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


def warm(name: str, n: int) -> Work:
    """The work, in a process whose model was touched from end to end."""
    work = Work(sh.load(), n)
    work.lm("a")  # brings in every weight, the unembedding with them
    getattr(Work(work.lm, BATCH), name)()
    return work


def seconds(name: str, n: int) -> float:
    """The child's side: how long one way takes."""
    work = warm(name, n)
    start = time.perf_counter()
    getattr(work, name)()
    return time.perf_counter() - start


def mib(name: str, n: int) -> float:
    """The child's side: the most that one way allocates at one time, above the loaded model."""
    import memray  # not on Windows; the seconds do without

    work = warm(name, n)
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder, "allocations")
        with memray.Tracker(record, file_format=memray.FileFormat.AGGREGATED_ALLOCATIONS):
            getattr(work, name)()
        with memray.FileReader(record) as reader:
            return reader.metadata.peak_memory / 2**20


def in_new_process(measure: str, name: str, n: int) -> float:
    """`seconds` or `mib` in a fresh process."""
    done = subprocess.run([sys.executable, __file__, measure, name, str(n)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{measure} of {name} on {n} texts failed:\n{done.stderr}")
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
        rounds = [{name: in_new_process("seconds", name, n) for name in BARE} for _ in range(2 if n == SIZES[0] else 1)]
        best = {name: min(one[name] for one in rounds) for name in BARE}
        for name, bare in BARE.items():
            # The lens on the large set is two times three minutes of the same batches: its memory is counted once.
            if name in STATES or n == SIZES[0]:
                peak[name, n] = in_new_process("mib", name, n)
            held = f"{peak[name, n]:.0f}" if (name, n) in peak else ""
            returned = f"{array[n]:.0f}" if name == "hidden_states" else ""
            row = [name, n, f"{best[name]:.2f}", f"{best[name] / best[bare]:.2f}", ALLOWED.get(name, "")]
            print(f"| {' | '.join(map(str, row))} | {held} | {returned} |", flush=True)
    small, large = (peak["hidden_states", n] - array[n] for n in SIZES)
    print(f"\nhidden_states: {large:.1f} MiB above the model and the returned array on {SIZES[1]} texts, ", end="")
    print(f"{large / small:.2f} times the {small:.1f} MiB on {SIZES[0]} (allowed: up to 1.10)")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps({"seconds": seconds, "mib": mib}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))))
    else:
        main()
