"""Small language models grown from nothing on a made-up world (`world`), and what is measured of them as they grow."""

import io
import math
import os
import pickle
import random
from collections.abc import Iterator
from contextlib import contextmanager
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
from safetensors.torch import load_file
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

from semhub_utils import cache, world
from semhub_utils.language_model import LanguageModel
from semhub_utils.lens import lens_logits
from semhub_utils.registry import MIDDLE, ModelSpec
from semhub_utils.similarity import similarity
from semhub_utils.states import hidden_states
from semhub_utils.steering import random_vector, steer, steering_vector
from semhub_utils.world import Fact, World

DOCUMENTS, SENTENCES = 12, 8  # of a step: 480 tokens
# Tried with seeds below 10, as the size and the steps were; those of the tables start there. A weight decay of 0.05 or
# of 0.4 brings the languages half as near in as many steps.
RATE, WARM_UP, DECAY = 4e-3, 0.05, 0.2
_CHECKS = 8  # how often a training is measured


@dataclass(frozen=True)
class Plan:
    """One model to grow, all that decides it.

    `share` of the sentences are in the larger language, which is A, or B if `swapped`; `parallel` of the smaller one's
    sentences are in documents that say the same in the larger one. `width` and `blocks` are the model's. `seed` decides
    the world, its words, the first weights and the texts.
    """

    share: float = 0.8
    parallel: float = 0.5
    swapped: bool = False
    width: int = 64
    blocks: int = 4
    steps: int = 2400
    seed: int = 10

    def __post_init__(self) -> None:
        """Raises ValueError for a size that no model can have."""
        if self.width < 8 or self.width % 8 or self.blocks < 1 or self.steps < _CHECKS:
            given = f"width is {self.width}, blocks is {self.blocks} and steps is {self.steps}"
            raise ValueError(f"{given}: give a multiple of 8, at least 1, and at least {_CHECKS}")

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
    spec = ModelSpec("grown", "from nothing", f"plan:{cache.key(asdict(plan))}")
    return LanguageModel(model, world.tokenizer(plan.world), spec)


def batch(plan: Plan, step: int) -> Int[Tensor, "documents tokens"]:
    """The token ids of one step's documents, which are equally long; they depend on the plan and the step alone."""
    texts = world.documents(plan.world, plan.share, plan.parallel, DOCUMENTS, SENTENCES, plan.seed, step)
    return torch.tensor([[plan.world.number[word] for word in text.split()] for text in texts])


def loss_of(model: nn.Module, ids: Int[Tensor, "documents tokens"]) -> Float[Tensor, ""]:
    """The mean of -log p(next token), in nats."""
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


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
        ValueError: for a file that is no training, or one of another plan.
    """
    with _one_thread():
        return _grow(plan, keep, device, progress)


def _grow(plan: Plan, keep: Path | None, device: str, progress: bool) -> tuple[LanguageModel, pd.DataFrame]:
    lm = new_model(plan)
    lm.model.to(device)
    optimizer = torch.optim.AdamW(lm.model.parameters(), lr=RATE, weight_decay=DECAY)
    done, frames = 0, [measure(lm, plan.world).assign(step=0)]
    if keep and keep.is_file():
        kept = _kept(keep, plan, device)
        lm.model.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        done, frames = kept["step"], [pd.DataFrame(kept["rows"])]
    checks = {round(plan.steps * number / _CHECKS) for number in range(1, _CHECKS + 1)}
    lm.model.train()
    # In a notebook tqdm itself does not look there.
    hidden = not progress or bool(os.environ.get("TQDM_DISABLE"))
    steps = tqdm(range(done, plan.steps), desc="training", unit="step", leave=False, disable=hidden)
    for step in steps:
        for group in optimizer.param_groups:
            group["lr"] = rate(plan, step)
        loss = loss_of(lm.model, batch(plan, step).to(device))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(lm.model.parameters(), 1.0)
        optimizer.step()
        if step + 1 in checks:
            steps.set_postfix(loss=f"{loss.item():.2f} nats")
            lm.model.eval()
            frames.append(measure(lm, plan.world).assign(step=step + 1))
            lm.model.train()
            if keep:
                _keep(keep, plan, lm, optimizer, step + 1, pd.concat(frames))
    lm.model.eval().cpu()
    return lm, pd.concat(frames, ignore_index=True)


@contextmanager
def _one_thread() -> Iterator[None]:
    # Matrices this small take two threads half as long again as one, which also adds in one order everywhere.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def weights(plan: Plan) -> Path:
    """Where the weights of a grown model are, if they come with the book."""
    return Path(__file__).parent / "weights" / f"grown-{cache.key(asdict(plan))}.safetensors"


def load(plan: Plan) -> LanguageModel:
    """One of the models whose weights come with the book: the usual plan, and the same with the languages swapped.

    Raises:
        FileNotFoundError: for another plan.
    """
    path = weights(plan)
    if not path.is_file():
        raise FileNotFoundError(f"no weights of {plan} come with the book: grow it, with `grow(plan)`")
    lm = new_model(plan)
    found = {name: value.float() for name, value in load_file(path).items()}
    # The unembedding is the embedding, and so not in the file.
    lm.model.load_state_dict(found | {"lm_head.weight": found["model.embed_tokens.weight"]})
    return lm


def _kept(path: Path, plan: Plan, device: str) -> dict[str, Any]:
    try:
        kept = torch.load(path, map_location=device, weights_only=True)
        of = kept["plan"]
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} holds no training that can be gone on with: delete it, or give another file"
        ) from error
    if of != asdict(plan):
        raise ValueError(f"{path} is a training of {of}, not of {asdict(plan)}: give another file")
    return kept


def _keep(path: Path, plan: Plan, lm: LanguageModel, optimizer: Any, step: int, rows: pd.DataFrame) -> None:
    state = {"plan": asdict(plan), "step": step, "rows": rows.to_dict("list")}
    state |= {"model": lm.model.state_dict(), "optimizer": optimizer.state_dict()}
    whole = io.BytesIO()
    torch.save(state, whole)
    cache.write_bytes(path, whole.getvalue())


def measure(lm: LanguageModel, made: World) -> pd.DataFrame:
    """What a grown model knows, and what its layers share and say, when each lasting fact is asked in each language.

    A question is the sentence up to its value, and its state is that of the last token.

    Returns:
        A row for each measure, language that is `asked` in, and `layer` (-1 where it has none), with its `value`:

        - knows: of the facts said in that language, the share that is answered, by the word or the digit
        - transfer: the same of the facts that were only ever said in the other language
        - similarity, retrieval: of the two languages' states of a fact ("centred" and "retrieval" of `similarity`),
          over the facts said in both, each relation's mean taken off first; "similarity null" and "retrieval null" are
          the 95% quantile of the highest layer's under shuffled partners; asked in "both"
        - mass A, mass B: the lens's probability of all words of that language together
        - says A, says B: log p of the value in that language's word less its mean over the relation's other values
        - push, own push: the mean effect of `crossing` with a vector out of the other language, and out of the same
    """
    texts = {language: [made.question(fact, language) for fact in made.facts] for language in made.languages}
    states = {language: hidden_states(lm, asked, batch_size=512, progress=False) for language, asked in texts.items()}
    both = np.array([len(said) == 2 for said in made.said.values()])
    rows = _likeness(*(_less_mean(made, state)[both] for state in states.values()))
    number = made.number
    said = {name: torch.tensor([number[made.words[name][fact.value]] for fact in made.facts]) for name in texts}
    digit = torch.tensor([number.get(fact.value, -1) for fact in made.facts])
    values = {
        name: torch.tensor([[number[made.words[name][v]] for v in world.LASTING[f.relation]] for f in made.facts])
        for name in texts
    }
    spoken = {name: torch.tensor([number[word] for word in made.words[name].values()]) for name in texts}
    for asked, other in (made.languages, made.languages[::-1]):
        logp = lens_logits(lm, states[asked], torch.arange(len(number))[:, None]).log_softmax(-1)
        told = logp[:, -1].argmax(1)
        right = ((told == said[asked]) | (told == digit)).double().numpy()
        rows.append(("knows", asked, -1, right[[asked in into for into in made.said.values()]].mean()))
        rows.append(("transfer", asked, -1, right[[into == (other,) for into in made.said.values()]].mean()))
        for name in sorted(texts):
            own = _taken(logp, said[name][:, None])[..., 0]
            rest = (_taken(logp, values[name]).sum(-1) - own) / (values[name].shape[1] - 1)
            for kind, series in (("mass", logp[..., spoken[name]].exp().sum(-1)), ("says", own - rest)):
                mean = series[torch.from_numpy(both)].mean(0).tolist()
                rows += [(f"{kind} {name}", asked, layer, value) for layer, value in enumerate(mean)]
    for (taken, asked), effect in crossing(lm, made).groupby(["taken", "asked"])["effect"].mean().items():
        rows.append(("own push" if taken == asked else "push", asked, -1, effect))
    return pd.DataFrame(rows, columns=["measure", "asked", "layer", "value"])


def _less_mean(made: World, states: Float[Tensor, "facts layers d"]) -> Float[Tensor, "facts layers d"]:
    # Two questions of one relation are alike in any language; what is asked here is whether two of one thing are.
    relations = np.array([fact.relation for fact in made.facts])
    found = states.clone()
    for relation in world.LASTING:
        own = torch.from_numpy(relations == relation)
        found[own] -= states[own].mean(0)
    return found


def _likeness(one: Tensor, other: Tensor) -> list[tuple[str, str, int, float]]:
    rows = []
    frame = similarity(one, other, samples=1, shuffles=200)
    for name, measured in (("similarity", "centred"), ("retrieval", "retrieval")):
        of = frame[frame["measure"] == measured]
        for layer, value, null in zip(of["layer"], of["value"], of["null_high"], strict=True):
            rows += [(name, "both", layer, value), (f"{name} null", "both", layer, null)]
    return rows


def _taken(
    logp: Float[Tensor, "facts layers vocabulary"], ids: Int[Tensor, "facts words"]
) -> Float[Tensor, "facts layers words"]:
    return logp.gather(2, ids[:, None].expand(-1, logp.shape[1], -1))


def crossing(lm: LanguageModel, made: World, pairs: int = 2, seed: int = 0) -> pd.DataFrame:
    """What a push that is taken from one language does to answers in the other.

    For pairs of values of a relation the vector is the difference of the mean states, in the middle block, of the
    questions in one language that have the one value and the other. It is added, as long as it is, at the last token of
    questions whose answer is the second value. The effect is by how much the log-odds of the first value against the
    second rise, in the words of the language that is asked, less the same under a random vector of that length.

    Args:
        lm: the model.
        made: its world.
        pairs: of values, for each relation.
        seed: of which pairs, and of the random vectors.

    Returns:
        A row for each pair and pair of languages: `relation`, `taken` from, `asked` in, and its `effect` in nats.
    """
    number, draw = made.number, random.Random(seed)
    layer = middle(lm)[len(middle(lm)) // 2]
    rows = []
    for relation in world.LASTING:
        having: dict[str, list[Fact]] = {}
        for fact in made.known(*made.languages):
            if fact.relation == relation:
                having.setdefault(fact.value, []).append(fact)
        for up, down in draw.sample(list(permutations(having, 2)), pairs):
            for taken, asked in product(made.languages, repeat=2):
                toward, away = ([made.question(fact, taken) for fact in having[value]] for value in (up, down))
                vector = steering_vector(lm, toward, away, layer)
                texts = [made.question(fact, asked) for fact in having[down]]
                wanted = [number[made.words[asked][value]] for value in (up, down)]
                plain, pushed = _odds(lm, texts, wanted), []
                for added in (vector, random_vector(vector, draw.randrange(2**31))):
                    with steer(lm, added, float(vector.direction.norm()), "last", unit="absolute"):
                        pushed.append(_odds(lm, texts, wanted) - plain)
                rows.append((relation, taken, asked, pushed[0] - pushed[1]))
    return pd.DataFrame(rows, columns=["relation", "taken", "asked", "effect"])


def _odds(lm: LanguageModel, texts: list[str], wanted: list[int]) -> float:
    logits = lm(texts, logits_to_keep=1)["logits"][:, -1, wanted]
    return float((logits[:, 0] - logits[:, 1]).mean())


def middle(lm: LanguageModel) -> list[int]:
    """The blocks at 0.35 to 0.85 of the depth."""
    first, last = math.ceil(MIDDLE[0] * lm.n_layers), math.floor(MIDDLE[1] * lm.n_layers)
    return list(range(first, last + 1))
