"""Train the linear map between the picture encoder and the language model, its control, and the recipe tried first.

Run: `python tools/train_projectors.py trained` (or `shuffled`, `trial`, `untrained`; `--device cuda` on a GPU), then
`python tools/judge_projectors.py`. A run is kept in the cache every 25 steps, and a second call goes on from there.
Pictures of Tux Paint are used where they are installed; the weights that come with the book were trained with them.
"""

import argparse
import hashlib
import inspect
import json
import math
import time
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors.torch
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance
from torch import Tensor
from tqdm import tqdm

import semhub_utils as sh
from semhub_utils import cache, stitched
from semhub_utils.data.images import pictures
from semhub_utils.data.picture_files import SIDE, open_picture

BATCH, KEEP_EVERY = 16, 25


@dataclass(frozen=True)
class Recipe:
    """How a projector is trained."""

    steps: int
    copies: int  # each picture as it is and so many times less one changed
    dropout: float
    decay: float
    prompts: tuple[str, ...]
    rate: float = 1e-3
    warm_up: float = 0.1  # the share of the steps before the rate is at its highest
    at_words: bool = True  # begin with soft tokens near the mean embedding of the names, not anywhere
    shuffled: bool = False
    seed: int = 0


PLAIN = " A picture of a"
BEST = Recipe(600, 6, 0.2, 0.05, (PLAIN, " This is a", " Here you see a", " An image of the"))
RECIPES = {
    # What was tried first, as it was, and from the start that the others have.
    "trial": Recipe(450, 1, 0.2, 0.01, (PLAIN,), rate=3e-3, warm_up=0.3, at_words=False),
    "trial-from-words": Recipe(450, 1, 0.2, 0.01, (PLAIN,), rate=3e-3, warm_up=0.3),
    "trained": BEST,
    "shuffled": replace(BEST, shuffled=True),
    "untrained": replace(BEST, steps=0),
}


def training_pictures() -> pd.DataFrame:
    """All pictures to train on, out of every source that is installed but the photographs."""
    try:
        frame = pictures(["openmoji", "stamps"])
    except FileNotFoundError as error:
        print(f"Without the stamps of Tux Paint: {error}")
        frame = pictures(["openmoji"])
    return frame[frame["split"] == "train"].reset_index(drop=True)


def changed(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A picture with transparency, turned, mirrored, moved, larger or smaller, in other light, on another ground."""
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = image.rotate(rng.uniform(-20, 20), Image.Resampling.BICUBIC)
    side = int(SIDE * rng.uniform(0.6, 1.15))
    image = image.resize((side, side), Image.Resampling.BICUBIC)
    ground = Image.new("RGBA", (SIDE, SIDE), tuple(int(v) for v in rng.integers(120, 256, 3)))
    free = SIDE - side
    x, y = (int(rng.uniform(min(0, free), max(0, free))) for _ in range(2))
    ground.paste(image, (x, y), image)
    made = ground.convert("RGB")
    for kind in (ImageEnhance.Brightness, ImageEnhance.Color, ImageEnhance.Contrast):
        made = kind(made).enhance(rng.uniform(0.7, 1.3))
    return made


def features(frame: pd.DataFrame, copies: int) -> Tensor:
    """The encoder's features of every picture and its changed copies: (pictures, copies, 16, 1280), float16, kept."""
    named = [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in frame["file"]]
    key = cache.key([named, copies, stitched.SHA256, stitched.GRID, inspect.getsource(changed)])
    kept = cache.root() / "projectors" / f"features-{key}.npy"
    if not kept.exists():
        encoder = stitched.PictureEncoder()
        made = np.empty((len(frame), copies, stitched.GRID**2, stitched.CHANNELS), np.float16)
        for row, file in enumerate(tqdm(frame["file"], desc="features")):
            plain = open_picture(file, SIDE, background=None)
            rng = np.random.default_rng([row, 1])
            views = [open_picture(plain)] + [changed(plain, rng) for _ in range(copies - 1)]
            made[row] = encoder(views).numpy()
        held = BytesIO()
        np.save(held, made)
        cache.write_bytes(kept, held.getvalue())
    return torch.from_numpy(np.load(kept))


def mean_and_spread(seen: Tensor) -> tuple[Tensor, Tensor]:
    """The mean and the standard deviation of each channel, which bring it to zero mean and unit variance."""
    flat = seen.flatten(0, -2).double()
    return flat.mean(0).float(), flat.std(0).clamp(min=1e-3).float()


class Run:
    """One training run: all that decides it, and where it stands."""

    def __init__(self, name: str, lm: sh.LanguageModel):
        self.name, self.lm, self.recipe = name, lm, RECIPES[name]
        self.frame = training_pictures()
        self.seen = features(self.frame, BEST.copies)[:, : self.recipe.copies]
        self.names = self.frame["concept"].tolist()
        if self.recipe.shuffled:
            # Concepts, not pictures, change names: a concept of three pictures keeps one name, a wrong one.
            concepts = self.frame["concept"].unique()
            dealt = dict(zip(concepts, np.random.default_rng(1).permutation(concepts), strict=True))
            self.names = [dealt[name] for name in self.names]
        self.mean, self.spread = mean_and_spread(self.seen[:, 0].float())
        generator = torch.Generator().manual_seed(self.recipe.seed)
        inputs = len(self.mean)
        self.length = word_length(lm)
        self.map = torch.randn(lm.d_model, inputs, generator=generator) / math.sqrt(inputs)
        self.bias = torch.zeros(lm.d_model)
        if self.recipe.at_words:
            self.map, self.bias = 0.3 * self.map, mean_word(lm, self.names) * math.sqrt(lm.d_model) / self.length
        self.map.requires_grad_()
        self.bias.requires_grad_()
        self.losses: list[float] = []
        self.seconds = 0.0
        code = [inspect.getsource(one) for one in (Run, mean_and_spread, changed, name_loss)]
        key = cache.key([asdict(self.recipe), self.names, code, stitched.SHA256], model=lm.spec.revision)
        self.kept = cache.root() / "projectors" / f"run-{name}-{key}.pt"

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
    cache.write_bytes(stitched.projector_file(run.name), safetensors.torch.save(run.weights()))
    counts = run.frame["source"].value_counts().to_dict()
    row = {
        "recipe": asdict(run.recipe),
        "pictures": counts,
        "concepts": run.frame["concept"].nunique(),
        "loss_first_50": round(float(np.mean(run.losses[:50])), 3) if run.losses else None,
        "loss_last_50": round(float(np.mean(run.losses[-50:])), 3) if run.losses else None,
        "seconds": round(run.seconds),
        "language_model": run.lm.spec.revision,
        "encoder": stitched.SHA256,
        "sha256": hashlib.sha256(stitched.projector_file(run.name).read_bytes()).hexdigest(),
    }
    cache.write_text(stitched.projector_file(run.name).with_suffix(".json"), json.dumps(row, indent=1) + "\n")


def main() -> None:
    """Train what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="+", choices=list(RECIPES))
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    lm = sh.load("gemma-3-270m", device=asked.device)
    lm.model.requires_grad_(False)
    for name in asked.names:
        run = Run(name, lm)
        run.train()
        save(run)


if __name__ == "__main__":
    main()
