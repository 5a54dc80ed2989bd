"""Train the linear maps between an encoder and the language model, their controls, and the recipes tried first.

Run: `python tools/train_projectors.py image trained` (or `audio`; and `shuffled`, `untrained` and others; `--device
cuda` on a GPU), then `python tools/judge_projectors.py`. A run is kept in the cache every 25 steps, and a second call
goes on from there. Pictures of Tux Paint are used where they are installed; the weights that come with the book were
trained with them.
"""

import argparse
import hashlib
import inspect
import json
import math
import time
from dataclasses import asdict, dataclass, replace
from io import BytesIO

import numpy as np
import pandas as pd
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

import semhub_utils as sh
import training_data as data
from semhub_utils import cache, stitched

BATCH, KEEP_EVERY = 16, 25


@dataclass(frozen=True)
class Recipe:
    """How a projector is trained."""

    steps: int
    copies: int  # each picture as it is and so many times less one changed; each word in so many voices
    dropout: float
    decay: float
    prompts: tuple[str, ...]
    rate: float = 1e-3
    warm_up: float = 0.1  # the share of the steps before the rate is at its highest
    at_words: bool = True  # begin with soft tokens near the mean embedding of the names, not anywhere
    regression: float | None = None  # begin where ridge regression of this strength brings them near the names' own
    shuffled: bool = False
    seed: int = 0


PLAIN = " A picture of a"
BEST = Recipe(600, 6, 0.2, 0.05, (PLAIN, " This is a", " Here you see a", " An image of the"))
HEARD = Recipe(400, 2, 0.1, 0.05, (":",), rate=2e-4, regression=0.1)
RECIPES = {
    "image": {
        # What was tried first, as it was, and from the start that the others have.
        "trial": Recipe(450, 1, 0.2, 0.01, (PLAIN,), rate=3e-3, warm_up=0.3, at_words=False),
        "trial-from-words": Recipe(450, 1, 0.2, 0.01, (PLAIN,), rate=3e-3, warm_up=0.3),
        "trained": BEST,
        "shuffled": replace(BEST, shuffled=True),
        "untrained": replace(BEST, steps=0),
    },
    "audio": {
        "trained": HEARD,
        "regression": replace(HEARD, steps=0),
        "shuffled": replace(HEARD, shuffled=True),
        "untrained": replace(HEARD, steps=0, regression=None),
    },
}


def mean_and_spread(seen: Tensor) -> tuple[Tensor, Tensor]:
    """The mean and the standard deviation of each channel, which bring it to zero mean and unit variance."""
    flat = seen.flatten(0, -2).double()
    return flat.mean(0).float(), flat.std(0).clamp(min=1e-3).float()


class Run:
    """One training run: all that decides it, and where it stands."""

    def __init__(self, kind: str, name: str, lm: sh.LanguageModel):
        self.kind, self.name, self.lm, self.recipe = kind, name, lm, RECIPES[kind][name]
        if kind == "image":
            self.frame = data.training_pictures()
            self.seen = data.picture_features(self.frame, BEST.copies)[:, : self.recipe.copies]
            self.names = self.frame["concept"].tolist()
        else:
            self.frame = data.training_words()
            self.seen = data.sound_features(self.frame, self.recipe.copies)
            self.names = self.frame["word"].tolist()
        if self.recipe.shuffled:
            self.names = dealt(self.names, self.frame.get("language", pd.Series("en", self.frame.index)).tolist())
        self.mean, self.spread = mean_and_spread(self.seen[:, 0].float())
        generator = torch.Generator().manual_seed(self.recipe.seed)
        inputs = len(self.mean)
        self.length = word_length(lm)
        self.map = torch.randn(lm.d_model, inputs, generator=generator) / math.sqrt(inputs)
        self.bias = torch.zeros(lm.d_model)
        if self.recipe.regression is not None:
            self.map, self.bias = self.regressed(self.recipe.regression)
        elif self.recipe.at_words:
            self.map, self.bias = 0.3 * self.map, mean_word(lm, self.names) * math.sqrt(lm.d_model) / self.length
        self.map.requires_grad_()
        self.bias.requires_grad_()
        self.losses: list[float] = []
        self.seconds = 0.0
        code = [inspect.getsource(one) for one in (Run, mean_and_spread, data, name_loss)]
        key = cache.key([asdict(self.recipe), self.names, code, stitched.ENCODERS[kind][1]], model=lm.spec.revision)
        self.kept = cache.root() / "projectors" / f"run-{kind}-{name}-{key}.pt"

    def regressed(self, strength: float) -> tuple[Tensor, Tensor]:
        """The map that ridge regression gives, from every part of an input to the first token of its name.

        W = (X'X + s t I)^-1 X'(Y - y), with Y the embeddings of those tokens at length 1, y their mean, s the strength
        and t the mean of the diagonal of X'X. Only names of one token count: of others no token has the meaning.
        """
        ids = self.lm.cut([" " + name for name in self.names], special=False)
        single = torch.tensor([len(one) == 1 for one in ids])
        if not single.any():
            raise ValueError("none of the names is one token of this model: begin without `regression`")
        wanted = torch.tensor([one[0] for one, only in zip(ids, single, strict=True) if only], device=self.lm.device)
        with torch.no_grad():
            found = F.normalize(self.lm.model.get_input_embeddings()(wanted).double().cpu(), dim=-1)
        mean = found.mean(0)
        x = ((self.seen[single].float() - self.mean) / self.spread).double()
        y = (found - mean)[:, None, None].expand(*x.shape[:3], -1)
        x, y = x.flatten(0, 2), y.flatten(0, 2)
        square = x.T @ x
        ridge = strength * square.diagonal().mean() * torch.eye(len(square), dtype=torch.float64)
        # Of the length that the other starts have, so that a step of training is as large beside it.
        long = math.sqrt(self.lm.d_model)
        return long * torch.linalg.solve(square + ridge, x.T @ y).T.float().contiguous(), long * mean.float()

    def weights(self) -> dict[str, Tensor]:
        """The map on the features themselves, which are no longer brought to zero mean and unit variance."""
        weight = (self.map / self.spread).detach().half()
        bias = self.bias.detach() - weight.float() @ self.mean
        return {"weight": weight.contiguous(), "bias": bias, "length": torch.tensor(self.length)}

    def train(self) -> None:
        """Train to the end, from where the last call was stopped."""
        recipe = self.recipe
        optimizer = torch.optim.AdamW([self.map, self.bias], lr=recipe.rate, weight_decay=recipe.decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, recipe.rate, total_steps=max(recipe.steps, 1), pct_start=recipe.warm_up
        )
        if self.kept.exists():
            held = torch.load(self.kept, weights_only=True)
            optimizer.load_state_dict(held["optimizer"])
            schedule.load_state_dict(held["schedule"])
            self.losses, self.seconds = held["losses"], held["seconds"]
            with torch.no_grad():
                self.map.copy_(held["map"])
                self.bias.copy_(held["bias"])
        started = time.monotonic() - self.seconds
        bar = tqdm(range(len(self.losses), recipe.steps), desc=self.name, initial=len(self.losses), total=recipe.steps)
        for step in bar:
            loss = self.loss(step)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            self.losses.append(loss.item())
            bar.set_postfix(loss=f"{np.mean(self.losses[-50:]):.2f}")
            if (step + 1) % KEEP_EVERY == 0:
                self.seconds = time.monotonic() - started
                self.keep(optimizer, schedule)

    def keep(self, optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler) -> None:
        """Write where the run stands, aside, and rename."""
        held = BytesIO()
        state = {"map": self.map.detach(), "bias": self.bias.detach(), "losses": self.losses, "seconds": self.seconds}
        torch.save({**state, "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}, held)
        cache.write_bytes(self.kept, held.getvalue())

    def loss(self, step: int) -> Tensor:
        """The loss of one batch, in nats a token; which batch it is follows from the seed and the step."""
        rng = np.random.default_rng([self.recipe.seed, step])
        per_epoch = len(self.names) // BATCH
        order = np.random.default_rng([self.recipe.seed, 10**6 + step // per_epoch]).permutation(len(self.names))
        rows = order[step % per_epoch * BATCH :][:BATCH]
        copies = rng.integers(self.recipe.copies, size=len(rows))
        x = (self.seen[rows, copies].float() - self.mean) / self.spread
        keep = torch.from_numpy(rng.random(x.shape) >= self.recipe.dropout).float() / (1 - self.recipe.dropout)
        soft = stitched.Projector.soft(x * keep, self.map, self.bias, self.length)
        prompt = self.recipe.prompts[rng.integers(len(self.recipe.prompts))]
        return name_loss(self.lm, soft, prompt, [self.names[row] for row in rows])


def dealt(names: list[str], languages: list[str]) -> list[str]:
    """The same names dealt out anew within each language: concepts change names, so one of three pictures keeps one."""
    rng = np.random.default_rng(1)
    own = {
        language: list(dict.fromkeys(n for n, at in zip(names, languages, strict=True) if at == language))
        for language in dict.fromkeys(languages)
    }
    new = {language: dict(zip(all_, rng.permutation(all_).tolist(), strict=True)) for language, all_ in own.items()}
    return [new[language][name] for name, language in zip(names, languages, strict=True)]


def word_length(lm: sh.LanguageModel) -> float:
    """The median length of an embedding, as the first block receives it."""
    with torch.no_grad():
        found = lm.model.get_input_embeddings()(torch.arange(1000, 50000, 50, device=lm.device))
    return float(found.float().norm(dim=-1).median())


def mean_word(lm: sh.LanguageModel, names: list[str]) -> Tensor:
    """The mean embedding of the tokens of all names, each name once, as the first block receives it."""
    ids = [token for one in lm.cut([" " + name for name in sorted(set(names))], special=False) for token in one]
    with torch.no_grad():
        return lm.model.get_input_embeddings()(torch.tensor(ids, device=lm.device)).float().mean(0).cpu()


def name_loss(lm: sh.LanguageModel, soft: Tensor, prompt: str, names: list[str]) -> Tensor:
    """The mean loss of the tokens of the names, behind soft tokens and a prompt."""
    embed = lm.model.get_input_embeddings()
    before = lm.cut([prompt], special=False)[0]
    ids = [lm.cut([" " + name], special=False)[0] for name in names]
    longest = max(map(len, ids))
    padded = torch.tensor([one + [lm.tokenizer.pad_token_id] * (longest - len(one)) for one in ids], device=lm.device)
    real = torch.tensor([[i < len(one) for i in range(longest)] for one in ids], device=lm.device)
    many = len(names)
    first = torch.tensor([[lm.tokenizer.bos_token_id]], device=lm.device).expand(many, 1)
    asked = torch.tensor([before], device=lm.device).expand(many, len(before))
    inputs = torch.cat([embed(first), soft.to(lm.device, embed.weight.dtype), embed(asked), embed(padded[:, :-1])], 1)
    states = lm.decoder(inputs_embeds=inputs, use_cache=False).last_hidden_state[:, -longest:]
    # Two dimensions: with three the product with this many rows takes several times as long.
    logits = F.linear(states[real], lm.head.weight)
    return F.cross_entropy(lm.scale_logits(logits.float()), padded[real])


def save(run: Run) -> None:
    """Write the weights of a finished run and the part of the card that it knows."""
    file = stitched.projector_file(run.name, run.kind)
    cache.write_bytes(file, safetensors.torch.save(run.weights()))
    counts = run.frame["source"].value_counts().to_dict()
    row = {
        "recipe": asdict(run.recipe),
        {"image": "pictures", "audio": "words"}[run.kind]: counts,
        "concepts": run.frame["concept"].nunique(),
        "loss_first_50": round(float(np.mean(run.losses[:50])), 3) if run.losses else None,
        "loss_last_50": round(float(np.mean(run.losses[-50:])), 3) if run.losses else None,
        "seconds": round(run.seconds),
        "language_model": run.lm.spec.revision,
        "encoder": stitched.ENCODERS[run.kind][1],
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
    cache.write_text(file.with_suffix(".json"), json.dumps(row, indent=1) + "\n")


def main() -> None:
    """Train what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kind", choices=list(RECIPES))
    parser.add_argument("names", nargs="+")
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    if unknown := [name for name in asked.names if name not in RECIPES[asked.kind]]:
        parser.error(f"{unknown[0]!r} is no projector of {asked.kind}: there are {', '.join(RECIPES[asked.kind])}")
    lm = sh.load("gemma-3-270m", device=asked.device)
    lm.model.requires_grad_(False)
    for name in asked.names:
        run = Run(asked.kind, name, lm)
        run.train()
        save(run)


if __name__ == "__main__":
    main()
