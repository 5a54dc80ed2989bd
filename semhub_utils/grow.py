"""Small language models grown from nothing on a made-up world (`world`), and what is measured of them as they grow."""

import io
import math
import random
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

from semhub_utils import cache, world
from semhub_utils.language_model import LanguageModel
from semhub_utils.lens import lens_logits
from semhub_utils.registry import MIDDLE, ModelSpec
from semhub_utils.similarity import item_scores
from semhub_utils.states import hidden_states
from semhub_utils.steering import random_vector, steer, steering_vector
from semhub_utils.world import Fact, World

DOCUMENTS, SENTENCES = 64, 8  # of a step: 64 documents of 8 sentences, about 2,600 tokens
RATE, WARM_UP, DECAY = 2e-3, 0.05, 0.05
_CHECKS = 8  # how often a training is measured


@dataclass(frozen=True)
class Plan:
    """One model to grow, all that decides it.

    `share` of the sentences are in the larger language, which is A, or B if `swapped`; `parallel` of the smaller
    one's sentences stand beside a translation. `width` and `blocks` are the model's. `seed` decides the world, its
    words, the first weights and the texts.
    """

    share: float = 0.8
    parallel: float = 0.5
    swapped: bool = False
    width: int = 128
    blocks: int = 6
    steps: int = 600
    seed: int = 0

    @cached_property
    def world(self) -> World:
        """What the model is told of."""
        return World(self.seed, ("B", "A") if self.swapped else ("A", "B"))


def new_model(plan: Plan) -> LanguageModel:
    """A decoder of transformers' Llama class with random weights, one token a word, embedding and unembedding tied."""
    torch.manual_seed(plan.seed)
    config = LlamaConfig(
        vocab_size=len(plan.world.vocabulary),
        hidden_size=plan.width,
        intermediate_size=3 * plan.width,
        num_hidden_layers=plan.blocks,
        num_attention_heads=4,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = LlamaForCausalLM(config).eval()
    return LanguageModel(model, world.tokenizer(plan.world), ModelSpec("grown", "this chapter"))


def batch(plan: Plan, step: int) -> Int[Tensor, "documents tokens"]:
    """The token ids of one step's documents, padded at their ends with 0; they depend on the plan and step alone."""
    texts = world.documents(plan.world, plan.share, plan.parallel, DOCUMENTS, SENTENCES, plan.seed, step)
    ids = plan.world.number
    return nn.utils.rnn.pad_sequence([torch.tensor([ids[word] for word in text.split()]) for text in texts], True)


def loss_of(model: nn.Module, ids: Int[Tensor, "documents tokens"]) -> Float[Tensor, ""]:
    """The mean of -log p(next token), in nats, padding left out."""
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=0)


def rate(plan: Plan, step: int) -> float:
    """The learning rate: up in a straight line, down along a cosine to a tenth."""
    rising = max(1, round(WARM_UP * plan.steps))
    if step < rising:
        return RATE * (step + 1) / rising
    along = (step - rising) / max(1, plan.steps - rising)
    return RATE * (0.1 + 0.45 * (1 + math.cos(math.pi * along)))


def grow(
    plan: Plan, keep: Path | None = None, device: str = "cpu", progress: bool = True
) -> tuple[LanguageModel, pd.DataFrame]:
    """Train a model from nothing, and measure it eight times on the way and once before.

    AdamW (Loshchilov and Hutter 2019) on the mean cross-entropy of the next token.

    Args:
        plan: all that decides the model.
        keep: a file that the training is kept in at each measurement; one that is there is gone on from, to the same
            numbers.
        device: where it is trained; it is returned on the CPU.
        progress: show a bar.

    Returns:
        The model, and the rows of `measure` at each of the steps, with a column `step`.

    Raises:
        ValueError: for a kept training of another plan.
    """
    lm = new_model(plan)
    lm.model.to(device)
    optimizer = torch.optim.AdamW(lm.model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=DECAY)
    done, frames = 0, [measure(lm, plan.world).assign(step=0)]
    if keep and keep.is_file():
        kept = torch.load(keep, map_location=device, weights_only=True)
        if kept["plan"] != asdict(plan):
            raise ValueError(f"{keep} is a training of {kept['plan']}, not of {asdict(plan)}: give another file")
        lm.model.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        done, frames = kept["step"], [pd.DataFrame(kept["rows"])]
    checks = {round(plan.steps * number / _CHECKS) for number in range(1, _CHECKS + 1)}
    lm.model.train()
    steps = tqdm(range(done, plan.steps), desc="training", unit="step", disable=not progress or None, leave=False)
    for step in steps:
        for group in optimizer.param_groups:
            group["lr"] = rate(plan, step)
        loss = loss_of(lm.model, batch(plan, step).to(device))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(lm.model.parameters(), 1.0)
        optimizer.step()
        if step + 1 in checks:
            lm.model.eval()
            frames.append(measure(lm, plan.world).assign(step=step + 1))
            lm.model.train()
            if keep:
                _keep(keep, plan, lm, optimizer, step + 1, pd.concat(frames))
    lm.model.eval().cpu()
    return lm, pd.concat(frames, ignore_index=True)


def _keep(path: Path, plan: Plan, lm: LanguageModel, optimizer: Any, step: int, rows: pd.DataFrame) -> None:
    state = {"plan": asdict(plan), "step": step, "rows": rows.to_dict("list")}
    state |= {"model": lm.model.state_dict(), "optimizer": optimizer.state_dict()}
    whole = io.BytesIO()
    torch.save(state, whole)
    cache.write_bytes(path, whole.getvalue())


def measure(lm: LanguageModel, made: World) -> pd.DataFrame:
    """What a grown model knows, and what its layers share and say, when each fact is asked in each language.

    A question is the sentence up to its value, and its state is that of the last token.

    Returns:
        A row for each measure, language it is `asked` in, and `layer` (-1 where it has none), with its `value`:

        - knows: of the facts said in that language, the share that is answered, by the word or the digit
        - transfer: the same of the facts that were only ever said in the other language
        - similarity: the centred cosine of the two languages' states of a fact, less that with the other facts of the
          same relation (`similarity`, "centred"), over facts said in both; asked in "both"
        - retrieval: of these, for how many the other language's state is the nearest of the relation
        - mass A, mass B: the lens's probability of all words of that language together
        - lead: log p of the value in the other language's word less that in its own
        - says A, says B: log p of the value in that language's word less its mean over the relation's other values
    """
    texts = {language: [made.question(fact, language) for fact in made.facts] for language in made.languages}
    states = {language: hidden_states(lm, asked, batch_size=512, progress=False) for language, asked in texts.items()}
    both = np.array([len(said) == 2 for said in made.said.values()])
    rows: list[tuple[str, str, int, float]] = []
    for name, measured in (("similarity", "centred"), ("retrieval", "retrieval")):
        parts = []
        for relation in world.RELATIONS:
            own = both & np.array([fact.relation == relation for fact in made.facts])
            parts.append(item_scores(*(states[language][own] for language in made.languages), measured).mean(0))
        rows += [(name, "both", layer, value) for layer, value in enumerate(np.mean(parts, 0))]
    number = made.number
    said = {name: torch.tensor([number[made.words[name][fact.value]] for fact in made.facts]) for name in texts}
    digit = torch.tensor([number.get(fact.value, -1) for fact in made.facts])
    values = {
        name: torch.tensor([[number[made.words[name][v]] for v in world.RELATIONS[f.relation]] for f in made.facts])
        for name in texts
    }
    spoken = {name: torch.tensor([number[word] for word in made.words[name].values()]) for name in texts}
    for asked, other in (made.languages, made.languages[::-1]):
        logp = lens_logits(lm, states[asked], torch.arange(len(number))[:, None]).log_softmax(-1)
        told = logp[:, -1].argmax(1)
        right = ((told == said[asked]) | (told == digit)).double().numpy()
        rows.append(("knows", asked, -1, right[[asked in into for into in made.said.values()]].mean()))
        rows.append(("transfer", asked, -1, right[[into == (other,) for into in made.said.values()]].mean()))
        of = {name: _taken(logp, ids[:, None])[..., 0] for name, ids in said.items()}
        series = {"lead": of[other] - of[asked]}
        for name in sorted(texts):
            series[f"mass {name}"] = logp[..., spoken[name]].exp().sum(-1)
            usual = (_taken(logp, values[name]).sum(-1) - of[name]) / (values[name].shape[1] - 1)
            series[f"says {name}"] = of[name] - usual
        for name, value in series.items():
            rows += [
                (name, asked, layer, one) for layer, one in enumerate(value[torch.from_numpy(both)].mean(0).tolist())
            ]
    return pd.DataFrame(rows, columns=["measure", "asked", "layer", "value"])


def _taken(
    logp: Float[Tensor, "facts layers vocabulary"], ids: Int[Tensor, "facts words"]
) -> Float[Tensor, "facts layers words"]:
    return logp.gather(2, ids[:, None].expand(-1, logp.shape[1], -1))


def crossing(lm: LanguageModel, made: World, strength: float = 1.0, pairs: int = 4, seed: int = 0) -> pd.DataFrame:
    """What a push that is taken from one language does to answers in the other.

    For pairs of values of a relation the vector is the difference of the mean states, in the middle block, of the
    questions in one language that have the one value and the other. It is added at the last token of questions whose
    answer is the second value. The effect is by how much the log-odds of the first value against the second rise, in
    the words of the language that is asked, less the same under a random vector of that length.

    Args:
        lm: the model.
        made: its world.
        strength: how often the vector is added, 1 for as long as it is.
        pairs: of values, for each relation.
        seed: of which pairs, and of the random vectors.

    Returns:
        A row for each pair and pair of languages: `relation`, `taken` from, `asked` in, and its `effect` in nats.
    """
    number, draw = made.number, random.Random(seed)
    layer = middle(lm)[len(middle(lm)) // 2]
    rows = []
    for relation in world.RELATIONS:
        having: dict[str, list[Fact]] = {}
        for fact in made.known(*made.languages):
            if fact.relation == relation:
                having.setdefault(fact.value, []).append(fact)
        for up, down in draw.sample(list(permutations(having, 2)), pairs):
            for taken, asked in product(made.languages, repeat=2):
                sides = [[made.question(fact, taken) for fact in having[value]] for value in (up, down)]
                vector = steering_vector(lm, *sides, layer)
                texts = [made.question(fact, asked) for fact in having[down]]
                wanted = torch.tensor([number[made.words[asked][value]] for value in (up, down)])

                def odds(texts: list[str] = texts, wanted: Tensor = wanted) -> float:
                    logits = lm(texts, logits_to_keep=1).logits[:, -1, wanted]
                    return float((logits[:, 0] - logits[:, 1]).mean())

                plain, pushed = odds(), []
                for added in (vector, random_vector(vector, draw.randrange(2**31))):
                    with steer(lm, added, strength * float(vector.direction.norm()), "last", unit="absolute"):
                        pushed.append(odds() - plain)
                rows.append((relation, taken, asked, pushed[0] - pushed[1]))
    return pd.DataFrame(rows, columns=["relation", "taken", "asked", "effect"])


def middle(lm: LanguageModel) -> list[int]:
    """The blocks at 0.35 to 0.85 of the depth."""
    first, last = math.ceil(MIDDLE[0] * lm.n_layers), math.floor(MIDDLE[1] * lm.n_layers)
    return list(range(first, last + 1))
