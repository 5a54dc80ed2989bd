"""Steering swept over directions, strengths and prompts, in batches, and taken up again where it was stopped."""

import glob
import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from semhub_utils import cache, parallel
from semhub_utils.hooks import Positions, State, Where, edit, record, resumed, watch
from semhub_utils.language_model import LanguageModel
from semhub_utils.measures import Words, odds_of, word_ids
from semhub_utils.soft_tokens import Example, Text
from semhub_utils.states import batches, reduced
from semhub_utils.steering import SteeringVector, adding, push

Rows = list[dict]


def sweep(
    lm: LanguageModel,
    vectors: Mapping[str, SteeringVector] | Sequence[SteeringVector],
    prompts: Sequence[Text],
    strengths: Sequence[float],
    words: Words | Sequence[Words] | None = None,
    max_new_tokens: int = 20,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seeds: Sequence[int] = (0,),
    positions: Positions = "all",
    batch_size: int = 64,
    keep: str | Path | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Steer every prompt with every vector at every strength, and see what comes next.

    Started by torchrun or `accelerate launch`, the processes divide the parts among them, and each returns all rows, as
    one process would; where they share one model's weights (`load(tensor_parallel=True)`), they run all parts together.

    Args:
        lm: the model.
        vectors: by name, or a list, named by their numbers. Each knows its layer, so that a sweep over layers is one
            vector a layer.
        prompts: the texts to continue.
        strengths: in units of each vector's `scale`; 0 is no steering, negative the other way.
        words: (positive, negative) words for `log_odds`, the same for all prompts or one pair of lists a prompt;
            without them no log-odds.
        max_new_tokens: how long the continuations are; 0 for none, which costs far less: the blocks below each
            vector's layer then run once for all vectors and strengths there.
        temperature: of sampling, 0 for the likeliest token, as in `lm.generate`.
        top_p: of sampling.
        seeds: of sampling, one continuation each.
        positions: what is steered, as in `steer`.
        batch_size: texts in one forward pass. Sampling draws by batch, so another size draws other continuations.
        keep: a file to which each finished part is added; called again with the same arguments, `sweep` takes up
            where it was stopped. Of several processes the first writes it, and each other a file beside it, with
            its number behind the name; any number of processes takes up what they all have done.
        progress: show a bar on work that takes more than a few seconds.

    Returns:
        A row for each vector, strength, prompt (its index) and seed: `vector`, `layer`, `strength`, `prompt`, with
        words `log_odds`, and with continuations `seed` and `continuation`.

    Raises:
        ValueError: for no vectors, prompts, strengths or seeds, the same one twice, a file of another sweep, neither
            words nor new tokens, processes that ask for different sweeps, and whatever `steer`, `generate` and
            `log_odds` refuse.
        RuntimeError: in all processes but the one that failed, with its number and what it said.
    """
    named = dict(vectors) if isinstance(vectors, Mapping) else {str(i): v for i, v in enumerate(vectors)}
    for what, given in (("vectors", named), ("prompts", prompts), ("strengths", strengths), ("seeds", seeds)):
        if isinstance(given, str) or not len(given):
            raise ValueError(f"{what} is {given!r}: give a list with one or more")
        if what in ("strengths", "seeds") and len(set(given)) < len(given):
            raise ValueError(f"{what} is {list(given)}, with one of them twice: give each once")
    if max_new_tokens < 0 or (not max_new_tokens and words is None):
        raise ValueError(f"max_new_tokens is {max_new_tokens}: give 1 or more, or 0 together with words")
    pairs: list[Any] = [] if words is None else [words] if isinstance(words[0][0], str) else list(words)
    if words is not None and len(pairs) not in (1, len(prompts)):
        raise ValueError(f"there are {len(pairs)} pairs of words for {len(prompts)} prompts: give one, or one a prompt")
    for vector, strength in product(named.values(), strengths):
        push(lm, vector, strength)  # refuses now what would be refused after an hour
    lm.token_ids(list(prompts))

    parts: dict[str, Callable[[], Rows]] = {}
    if words is not None:
        parts |= _log_odds_parts(lm, named, list(prompts), list(strengths), pairs, positions, batch_size)
    if max_new_tokens:
        how = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p}
        parts |= _text_parts(lm, named, list(prompts), list(strengths), seeds, positions, batch_size, how)
    hashes = {name: vector.hash for name, vector in named.items()}
    asked = [prompt.key if isinstance(prompt, Example) else prompt for prompt in prompts]
    inputs: list[Any] = [hashes, asked, list(map(float, strengths)), [[list(s) for s in p] for p in pairs]]
    inputs += [max_new_tokens, temperature, top_p, list(seeds), str(positions), batch_size]
    rows = _run(lm, parts, cache.key(inputs, model=f"{lm.spec.name} {lm.spec.revision}"), keep, progress)

    frames = [pd.DataFrame(found) for kind in ("log-odds", "text") if (found := rows[kind])]
    where = ["vector", "strength", "prompt"]
    frame = frames[0] if len(frames) == 1 else frames[0].merge(frames[1], on=where)
    frame.insert(1, "layer", frame["vector"].map({name: vector.layer for name, vector in named.items()}))
    order = {name: i for i, name in enumerate(named)}
    by = ["vector", "strength", "prompt", *(["seed"] if max_new_tokens else [])]
    return frame.sort_values(by, key=lambda c: c.map(order) if c.name == "vector" else c).reset_index(drop=True)


def _log_odds_parts(
    lm: LanguageModel,
    vectors: dict[str, SteeringVector],
    prompts: list[Text],
    strengths: list[float],
    pairs: list[Words],
    positions: Positions,
    batch_size: int,
) -> dict[str, Callable[[], Rows]]:
    """One part a layer and batch of prompts: all vectors of that layer, at all strengths."""
    ids = word_ids(lm, pairs)
    tokens = lm.token_ids(prompts)

    def part(layer: int, rows: list[int]) -> Rows:
        inputs = lm.pad([tokens[row] for row in rows])
        with record(lm, layer) as states:
            lm.run(inputs)
        below, found = states[layer], []
        for name, vector in vectors.items():
            for strength in strengths if vector.layer == layer else []:
                steered = edit(lm, layer, adding(push(lm, vector, strength)), positions)
                with resumed(lm, layer, below), steered:
                    last = _last_states(lm, inputs)
                odds = odds_of(lm, last, ids if len(ids) == 1 else ids[rows])
                found += [
                    {"vector": name, "strength": strength, "prompt": row, "log_odds": float(value)}
                    for row, value in zip(rows, odds, strict=True)
                ]
        return found

    groups = list(batches(tokens, batch_size, progress=False))
    layers = sorted({vector.layer for vector in vectors.values()})
    return {
        f"log-odds {layer} {number}": partial(part, layer, rows)
        for layer in layers
        for number, rows in enumerate(groups)
    }


def _last_states(lm: LanguageModel, inputs: dict[str, Tensor]) -> Float[Tensor, "texts d_model"]:
    found = []

    def keep(_: int, state: State, where: Where) -> None:
        found.append(reduced(state, where, -1).float())

    with watch(lm, lm.n_layers, keep):
        lm.run(inputs)
    return found[0]


def _text_parts(
    lm: LanguageModel,
    vectors: dict[str, SteeringVector],
    prompts: list[Text],
    strengths: list[float],
    seeds: Sequence[int],
    positions: Positions,
    batch_size: int,
    how: dict,
) -> dict[str, Callable[[], Rows]]:
    """One part a vector, seed and batch; a batch holds prompts at several strengths."""
    work = list(product(strengths, range(len(prompts))))

    def part(name: str, seed: int, rows: list[tuple[float, int]]) -> Rows:
        vector = vectors[name]
        added = torch.stack([push(lm, vector, strength) for strength, _ in rows])[:, None]
        with edit(lm, vector.layer, adding(added), positions):
            texts = lm.generate([prompts[row] for _, row in rows], seed=seed, **how)
        return [
            {"vector": name, "strength": strength, "prompt": row, "seed": seed, "continuation": text}
            for (strength, row), text in zip(rows, texts, strict=True)
        ]

    groups = [work[start : start + batch_size] for start in range(0, len(work), batch_size)]
    return {
        f"text {name} {seed} {number}": partial(part, name, seed, rows)
        for name, seed in product(vectors, seeds)
        for number, rows in enumerate(groups)
    }


def _run(
    lm: LanguageModel, parts: dict[str, Callable[[], Rows]], key: str, keep: str | Path | None, progress: bool
) -> dict[str, Rows]:
    """Do the parts that are not done yet; the rows of all of them, by kind."""
    path = None if keep is None else Path(keep)
    with parallel.team(lm.model) as team:
        found = team.all(lambda: (key, {} if path is None else _read(path, key)))
        if len({other for other, _ in found}) > 1:
            raise ValueError(
                f"the {team.size} processes ask for different sweeps, and would divide one among them: give the same "
                "model, vectors, prompts and settings in each"
            )
        done = {name: rows for _, held in found for name, rows in held.items()}
        left = [name for name in parts if name not in done]
        # Processes that share one model's weights run all of it together, and the first writes.
        mine = left[team.rank :: team.size] if team.divides else left
        own = _own(path, key, team.rank) if path is not None and (team.divides or not team.rank) else None

        def work() -> dict[str, Rows]:
            made = {}
            shown = progress and not team.rank and not os.environ.get("TQDM_DISABLE")
            with tqdm(total=len(parts), desc="sweep", unit="batch", delay=3, leave=False, disable=not shown) as bar:
                bar.update(len(parts) - len(left))
                for name in mine:
                    made[name] = parts[name]()
                    if own is not None:
                        _add(own, {"part": name, "rows": made[name]})
                    # The other processes are about as far.
                    bar.update(min(team.size if team.divides else 1, len(parts) - bar.n))
            return made

        for one in team.all(work) if team.divides else [work()]:
            done |= one
    rows: dict[str, Rows] = {"log-odds": [], "text": []}
    for name in parts:
        rows[name.partition(" ")[0]] += done[name]
    return rows


def _files(path: Path) -> list[Path]:
    """The file of a sweep and those that other processes wrote beside it, each with its number behind the name."""
    beside = path.parent.glob(f"{glob.escape(path.name)}.*")
    return [path, *sorted(one for one in beside if one.name.removeprefix(f"{path.name}.").isdigit())]


def _read(path: Path, key: str) -> dict[str, Rows]:
    """The parts that are done, in all files of a sweep; nothing is written yet, since others may be reading."""
    found: dict[str, Rows] = {}
    for file in _files(path):
        entries = [json.loads(line) for line in _whole(file)]
        if entries and entries[0].get("key") != key:
            raise ValueError(f"{file} holds another sweep than this one: give another file, or remove that")
        found |= {entry["part"]: entry["rows"] for entry in entries[1:]}
    return found


def _whole(file: Path) -> list[bytes]:
    # The last line is half a line if a run was ended while it wrote.
    lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
    return [line for line in lines if line.endswith(b"\n")]


def _own(path: Path, key: str, rank: int) -> Path:
    """The file that this process adds to, begun or rid of half a line."""
    own = path.with_name(f"{path.name}.{rank}") if rank else path
    whole = _whole(own)
    if not whole:
        own.parent.mkdir(parents=True, exist_ok=True)
        own.unlink(missing_ok=True)
        _add(own, {"key": key})
    elif own.stat().st_size > sum(map(len, whole)):
        cache.write_text(own, b"".join(whole).decode())
    return own


def _add(path: Path, entry: dict) -> None:
    # A line at a time and flushed to the disk: whatever ends the run, what is finished is there.
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
