"""The same work done by nnsight, nnterp, TransformerLens, semhub_utils and bare transformers, side by side in one run.

    make peers                                            the embedded model on this CPU, in float32
    .venv/bin/python benchmarks/peers.py --gpu            random weights of Llama-2-7B's shape, bfloat16, a CUDA GPU
    .venv/bin/python benchmarks/peers.py --size tiny      a toy, to try the command itself
    ... --keep                                            the whole, kept in peers.json and in the page's table

What the work is stands in ways_here.py. Each peer has an environment of its own, with the torch and transformers of
constraints.txt. Each measurement is a fresh process, which does short work up to three times; the ways take turns,
round by round, and the best time of each counts. Memory is counted apart, by memray as in core.py (on a GPU, by torch
in the same run). What a way returns is compared with the answers of plain torch hooks: one that gives other numbers is
said to, and is not ranked. The whole takes about half an hour on two cores, once the environments are made.
"""

import argparse
import json
import math
import os
import random
import re
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import core
from semhub_utils import cache, embedded, results
from semhub_utils.states import batches

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import environments  # noqa: E402
import marked  # noqa: E402

WORKER = Path(__file__).with_name("peer_work.py")
KEPT = Path(__file__).with_name("peers.json")
PAGE = ROOT / "book" / "reference" / "models-and-hardware.md"
WORKS = {"states": "last-token states", "lens": "lens of 3 targets, all positions", "steer": "steered generation"}
# The newest of each that imports: nnterp 1.3.0 does not with nnsight 0.8.
PEERS = {
    "nnsight": {"nnsight": "0.8.1"},
    "nnterp": {"nnterp": "1.3.0", "nnsight": "0.7.0"},
    "TransformerLens": {"transformer-lens": "4.3.0"},
}
WAYS = ("bare", "ours", *PEERS)
TEXTS, NEW, BATCH = 512, 32, 32  # texts of the states; the lens has an eighth of them, the generation a sixteenth
TOLERANCE = 1.05  # ours may take this much of a peer's seconds and memory
ALLOWED = {"states": 1.10, "lens": 1.30}  # and this much of the bare work's seconds
SIZES = {
    "tiny": dict(vocab_size=512, hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4),
    "7b": dict(
        vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32
    ),
}


def make_job(size: str | None, folder: Path, gpu: bool = False, n: int = TEXTS, new: int = NEW) -> dict:
    """The model, the texts as padded batches of token ids, and what is asked, the same for every way.

    `size` is one of SIZES, whose texts are numbers and whose tokens are those numbers, or None: the embedded model.
    """
    if size is None:
        source, config = embedded.path(), None
        width, layer, push, targets = 640, 9, 16.0, core.TARGETS.values()
        tokenizer, special = source / "tokenizer.json", {"bos_token": "<bos>", "eos_token": "<eos>"}
        special |= {"unk_token": "<unk>", "pad_token": "<pad>"}
        texts = core.make_texts(n)
    else:
        source, config = None, SIZES[size] | {"model_type": "llama", "pad_token_id": 0, "tie_word_embeddings": False}
        width, layer, push = config["hidden_size"], config["num_hidden_layers"] // 2, 0.25
        words = ["<pad>", "<unk>", *map(str, range(2, config["vocab_size"]))]
        made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
        made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer, special = folder / "tokenizer.json", {"pad_token": "<pad>", "unk_token": "<unk>"}
        made.save(str(tokenizer))
        draw = random.Random(0)
        ids = range(2, config["vocab_size"])
        texts = [" ".join(map(str, draw.choices(ids, k=draw.randint(4, 24)))) for _ in range(n)]
        targets = texts[0].split()[:3]
    special["padding_side"] = "left"
    cut = PreTrainedTokenizerFast(tokenizer_file=str(tokenizer), **special)
    # 0.25 or 16 on as many dimensions as a power of 4, and zero elsewhere: its norm is exact, so that an addition in
    # units of the norm is the same to the last bit.
    some = 4 ** int(math.log(width, 4))
    signs = torch.where(torch.rand(some, generator=torch.Generator().manual_seed(0)) < 0.5, -push, push)
    shortest = sorted(texts, key=lambda text: len(cut(text).input_ids))
    return {
        "folder": str(source) if source else None,
        "config": config,
        "dtype": "bfloat16" if gpu else "float32",
        "device": "cuda" if gpu else "cpu",
        "tokenizer": str(tokenizer),
        "special": special,
        "targets": [cut(word, add_special_tokens=False).input_ids[0] for word in targets],
        "layer": layer,
        "vector": torch.cat([signs, torch.zeros(width - some)]),
        "new": new,
        "batches": {
            "states": padded(cut, texts, BATCH),
            "lens": padded(cut, shortest[: n // 8], BATCH),
            "steer": padded(cut, texts[: n // 16], n // 16),
        },
    }


def padded(tokenizer: PreTrainedTokenizerFast, texts: list[str], size: int) -> list[dict]:
    """The texts in batches of like length, as hidden_states makes them, padded on the left."""
    tokens, made = tokenizer(texts).input_ids, []
    for rows in batches(tokens, size, False):
        batch = tokenizer.pad({"input_ids": [tokens[row] for row in rows]}, return_tensors="pt")
        mask = batch["attention_mask"]
        ids = {"input_ids": batch["input_ids"], "attention_mask": mask}
        made.append({"texts": [texts[row] for row in rows], "position_ids": (mask.cumsum(1) - 1).clamp(min=0)} | ids)
    return made


def difference(name: str, found: dict | None, right: dict, exact: bool) -> str:
    """What is wrong with a result, or nothing; `exact` for float32, otherwise bfloat16.

    Two kernels round differently, so states may differ by a share of their norm, log-probabilities by a little, and
    ranks by near ties; generated tokens may not in float32. In bfloat16 texts part where two tokens are nearly equal,
    so nine of ten first tokens must be the same.
    """
    if found is None:  # the bare states, which keep nothing, and the bare generation, which is not steered
        return ""
    for part, value in right.items():
        if found[part].shape != value.shape:
            return f"{part} of shape {tuple(found[part].shape)}, not {tuple(value.shape)}"
    if name == "states":
        error = (found["states"] - right["states"]).norm(dim=-1) / right["states"].norm(dim=-1)
        worst = error.nan_to_num(math.inf).max().item()
        return "" if worst <= (1e-4 if exact else 5e-2) else f"states off by {worst:.2g} of their norm"
    if name == "lens":
        error = (found["logprob"] - right["logprob"]).abs() - (1e-5 if exact else 2e-2) * right["logprob"].abs()
        worst = error.nan_to_num(math.inf).max().item()
        if worst > (1e-3 if exact else 0.1):
            return f"log-probabilities off by {worst:.2g}"
        moved = (found["rank"] - right["rank"]).abs() - (1e-3 if exact else 5e-2) * right["rank"]
        return "" if (worst := moved.max().item()) <= 3 else f"ranks off by {worst:.0f}"
    same = found["ids"] == right["ids"]
    if exact:
        return "" if same.all() else f"{1 - same.float().mean().item():.0%} of the generated tokens differ"
    first = same[:, 0].float().mean().item()
    return "" if first >= 0.9 else f"{1 - first:.0%} of the first generated tokens differ"


def pythons(ways: list[str]) -> dict[str, Path | str]:
    """The interpreter of each way, or the line that says why there is none."""
    found: dict[str, Path | str] = {}
    tested = environments.pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    for way in ways:
        if way not in PEERS:
            found[way] = Path(sys.executable)
            continue
        wanted = {name: tested[name] for name in ("torch", "transformers", "memray")} | PEERS[way]
        try:
            found[way] = environments.make(ROOT / "_build" / "peers" / way.lower(), wanted, [])
        except (environments.EnvironmentFailed, subprocess.CalledProcessError) as error:
            found[way] = "cannot be installed: " + first_error(str(error))
    return found


def first_error(said: str) -> str:
    """The line of an output that names the error."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"ERROR|[\w.]+(Error|Exception|Warning)\b", line)]
    return (named or lines or ["it says nothing"])[0][:200]


def run(python: Path, way: str, job: Path, name: str, measure: str, out: Path | None = None) -> dict:
    """One measurement in a fresh process: what it prints, or the line with its error."""
    quiet = {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [
        python,
        *(["-E", "-s"] if way in PEERS else []),
        WORKER,
        job,
        way,
        name,
        measure,
        *([out] if out else []),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | quiet)
    if done.returncode:
        return {"error": first_error(done.stderr.rpartition("Traceback")[2])}
    return json.loads(done.stdout.splitlines()[-1])


def measure_all(job: dict, folder: Path, found: dict[str, Path | str], works: list[str], rounds: int) -> list[dict]:
    """A row for each piece of work and way, with its seconds, its peak in bytes, or why it has none."""
    rows, file = [], folder / "job.pt"
    torch.save(job, file)
    for name in works:
        said = run(Path(sys.executable), "reference", file, name, "seconds", folder / "right.pt")
        if "error" in said:
            raise RuntimeError(f"the reference of {name} failed: {said['error']}")
        right = torch.load(folder / "right.pt")
        here = {way: {"work": name, "way": way, "note": "", "wrong": False} for way in found}
        for way, python in found.items():
            if isinstance(python, str):
                here[way]["note"] = python
        for turn in range(rounds + (job["device"] == "cpu")):
            measure = "seconds" if turn < rounds else "peak"
            for way, row in here.items():
                if row["note"] and not row["wrong"]:
                    continue
                out = None if turn else folder / "found.pt"
                new = run(found[way], way, file, name, measure, out)
                print(f"  {name}, {way}: {new}", file=sys.stderr, flush=True)
                if "error" in new:
                    row["note"] += f"does not run: {new['error']}"
                    continue
                if out and (wrong := difference(name, torch.load(out), right, job["dtype"] == "float32")):
                    row |= {"note": f"gives other numbers: {wrong}", "wrong": True}
                for key in ("seconds", "peak"):
                    if key in new:
                        row[key] = min(new[key], row.get(key, math.inf))
                row |= {"versions": new["versions"], "threads": new["threads"]}
        rows += here.values()
    return rows


def table(rows: list[dict]) -> str:
    """The rows in Markdown, each beside the bare work and ours."""
    lines = ["| work | way | seconds | times bare | times ours | peak MiB above the model | times ours | |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    of = {(row["work"], row["way"]): row for row in rows}

    def ratio(row: dict, way: str, key: str) -> str:
        base = of.get((row["work"], way), {}).get(key)
        return f"{row[key] / base:.2f}" if base and key in row else ""

    for row in rows:
        cells = [WORKS[row["work"]], named(row["way"]), f"{row['seconds']:.2f}" if "seconds" in row else ""]
        cells += [ratio(row, "bare", "seconds"), ratio(row, "ours", "seconds")]
        cells += [f"{row['peak'] / 2**20:.0f}" if "peak" in row else "", ratio(row, "ours", "peak"), row["note"]]
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines)


def written(page: str, made: dict) -> str:
    """The page with the figures of a run, a line for each way."""
    of = {(row["work"], row["way"]): row for row in made["rows"]}
    counts = {name: f"{WORKS[name]}, {count} texts" for name, count in made["texts"].items()}
    lines = ["| | " + " | ".join(f"{what}: s | MiB" for what in counts.values()) + " |", "|---" * 7 + "|"]
    for way in WAYS:
        cells = []
        for name in WORKS:
            row = of[name, way]
            seconds = f"{row['seconds']:.1f}" if "seconds" in row else ""
            cells += [f"{seconds} {row['note']}".strip()]
            cells += [f"{row['peak'] / 2**20:,.0f}" if "peak" in row else ""]
        lines.append(f"| {named(way)} | {' | '.join(cells)} |")
    said = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    lines += ["", f"{made['model']}; {made['machine']}; {said}; {made['date'][:10]}."]
    return marked.filled(page, "peers", "\n".join(lines))


def named(way: str) -> str:
    """A way with the versions of what it is measured with."""
    if way == "ours":
        return "semhub_utils"
    return " with ".join(f"{name} {version}" for name, version in PEERS.get(way, {}).items()) or way


def judged(rows: list[dict]) -> list[dict]:
    """What ours is to keep, each with its figures and whether it does; a way that is wrong or absent is no measure."""
    of = {(row["work"], row["way"]): row for row in rows if not row["note"]}
    asked = [
        (row["work"], way, key, TOLERANCE)
        for row in of.values()
        if row["way"] == "ours"
        for way in PEERS
        for key in ("seconds", "peak")
    ]
    asked += [(name, "bare", "seconds", most) for name, most in ALLOWED.items()]
    found = []
    for name, way, key, most in asked:
        ours, other = of.get((name, "ours"), {}).get(key), of.get((name, way), {}).get(key)
        if ours and other:
            times = ours / other
            found.append({"work": name, "against": way, "key": key, "times": times, "allowed": most})
            found[-1] |= {"ours": ours, "other": other, "met": times <= most}
    return found


def main(arguments: list[str] | None = None) -> None:
    """Make the environments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", action="store_true", help="bfloat16 on a CUDA GPU, of Llama-2-7B's shape")
    parser.add_argument("--size", choices=SIZES, help="random weights of this shape instead")
    parser.add_argument("--rounds", type=int, default=2, help="turns that each way takes (default 2)")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--works", nargs="+", choices=WORKS, default=list(WORKS))
    parser.add_argument(
        "--texts", type=int, default=TEXTS, help=f"of the states (default {TEXTS}); the others go with it"
    )
    parser.add_argument("--keep", action="store_true", help="write them into peers.json here and into the page")
    given = parser.parse_args(arguments)
    if given.gpu and not torch.cuda.is_available():
        parser.error("--gpu needs a CUDA GPU and torch sees none: leave it out to measure on the CPU")
    whole = (False, None, TEXTS, *WAYS, *WORKS)
    if given.keep and (given.gpu, given.size, given.texts, *given.ways, *given.works) != whole:
        parser.error("--keep is for the whole on the embedded model: leave the other options out")
    size = given.size or ("7b" if given.gpu else None)
    found = pythons(given.ways)
    with tempfile.TemporaryDirectory(prefix="peers-") as name:
        job = make_job(size, Path(name), given.gpu, given.texts)
        rows = measure_all(job, Path(name), found, given.works, given.rounds)
    model = f"random weights of the shape {size!r}" if size else "gemma-3-270m"
    made = {
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": results._machine(torch.device(job["device"])),
        "model": f"{model}, {job['dtype']}",
        "texts": {name: sum(len(batch["texts"]) for batch in job["batches"][name]) for name in WORKS},
        "tokens": {name: int(sum(batch["attention_mask"].sum() for batch in job["batches"][name])) for name in WORKS},
        "versions": {
            "Python": sys.version.split()[0],
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "rows": rows,
        "asked": judged(rows),
    }
    print(f"{made['model']}, {made['machine']}, {made['date']}, ", end="")
    print(", ".join(f"{name} {version}" for name, version in made["versions"].items()))
    print(", ".join(f"{WORKS[k]}: {n} texts, {made['tokens'][k]} tokens" for k, n in made["texts"].items()), end="\n\n")
    print(table(rows), end="\n\n")
    for one in made["asked"]:
        unit, what = (" s", 1) if one["key"] == "seconds" else (" MiB", 2**20)
        print(f"{'met    ' if one['met'] else 'NOT met'} {WORKS[one['work']]}, {one['key']}: ours ", end="")
        print(f"{one['ours'] / what:.2f}{unit}, {one['against']} {one['other'] / what:.2f}{unit}: ", end="")
        print(f"{one['times']:.2f} times, allowed {one['allowed']:.2f}")
    if given.keep:
        cache.write_text(KEPT, json.dumps(made, indent=1) + "\n")
        cache.write_text(PAGE, written(PAGE.read_text(encoding="utf-8"), made))


if __name__ == "__main__":
    main()
