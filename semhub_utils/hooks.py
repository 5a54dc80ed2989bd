"""Read and change the residual stream while the model runs.

Row 0 is the embedding (what block 1 receives), row k is the output of block k, counted from 1, never normed.
Our own hooks are used, and never transformers' `output_hidden_states`: what that returns misses an edit made by
a hook that was added after its first use.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from semhub_utils import parallel
from semhub_utils.language_model import LanguageModel
from semhub_utils.soft_tokens import KINDS, NAMES

Positions = str | int | np.integer | Sequence[int] | np.ndarray | None
State = Float[Tensor, "texts tokens d_model"]
_KINDS = ", ".join(map(repr, sorted(KINDS)))


@dataclass(frozen=True)
class Where:
    """Which tokens the current forward pass works on.

    `index` counts real tokens from 0 and is -1 on padding; with a key-value cache it goes on where the last pass
    ended. `lengths` is the number of real tokens of each prompt. `continued` says that this pass does not begin a
    prompt but goes on from the last pass. `kinds` says of which of `KINDS` (text, image, audio) each token is, by
    number.
    """

    index: Int[Tensor, "texts tokens"]
    lengths: Int[Tensor, " texts"]
    continued: bool
    kinds: Int[Tensor, "texts tokens"]

    def select(self, positions: Positions) -> Bool[Tensor, "texts tokens"]:
        """The mask of the chosen positions, never true on padding; see `edit` for what may be chosen."""
        if positions is None or positions == "all":
            return self.index >= 0
        if positions == "prompt":
            return (self.index >= 0) & (self.index < self.lengths[:, None])
        if isinstance(positions, str) and positions in KINDS:
            return (self.index >= 0) & (self.kinds == KINDS.index(positions))
        chosen = torch.zeros_like(self.index, dtype=torch.bool)
        for position in position_list(positions):
            chosen |= self.index == (position if position >= 0 else self.lengths[:, None] + position)
        return chosen

    def column(self, position: int) -> Int[Tensor, " texts"]:
        """Where in the padded batch a position of each text stands; it must exist."""
        wanted = position if position >= 0 else self.lengths[:, None] + position
        return (self.index == wanted).int().argmax(-1)


@contextmanager
def record(
    lm: LanguageModel, layers: int | np.integer | Sequence[int] | np.ndarray | None = None
) -> Iterator[dict[int, State]]:
    """Record the residual stream of what runs inside the block.

    Args:
        lm: the model.
        layers: which rows, 0 (the embedding) to `n_layers`; all by default.

    Yields:
        `states[k]` of shape (texts, tokens, d_model), in the model's dtype and on its device, padding included.
        It holds the last batch of prompts that ran; what is generated after them with a cache is appended.

    Edits are in it, also at their own layer, whichever context was entered first.
    """
    states: dict[int, State] = {}

    def see(layer: int, state: State, where: Where) -> None:
        states[layer] = torch.cat([states[layer], state], dim=1) if where.continued and layer in states else state

    with watch(lm, layers, see):
        yield states


@contextmanager
def watch(
    lm: LanguageModel,
    layers: int | np.integer | Sequence[int] | np.ndarray | None,
    see: Callable[[int, State, Where], None],
) -> Iterator[None]:
    """Call `see(layer, state, where)` as each chosen row is computed; nothing is kept.

    This is what `record` is made of, for callers that need less than the whole state: pooling it at once is how
    `hidden_states` stays within the memory of one batch.
    """
    if layers is None:
        layers = range(lm.n_layers + 1)
    chosen = [lm.check_layer(k) for k in ([layers] if isinstance(layers, int | np.integer) else layers)]

    def see_only(layer: int, state: State, where: Where) -> State:
        see(layer, state, where)
        return state

    with _hooked(lm, chosen, see_only, first=False):
        yield


@contextmanager
def edit(
    lm: LanguageModel, layer: int | np.integer, fn: Callable[[State], State], positions: Positions = None
) -> Iterator[None]:
    """Change the residual stream at one layer in what runs inside the block.

    Args:
        lm: the model.
        layer: 0 edits the embedding, k the output of block k.
        fn: takes the state (texts, tokens, d_model) and returns one of the same shape; only the chosen positions of
            what it returns are used. During generation with a cache it is called once for the prompt and then once
            for each new token.
        positions: None or "all" for every real token, "prompt" for the tokens of the prompt, "last" for its last
            one, "image" or "audio" for those of its picture or sound, "text" for the others, or numbers. Numbers count
            real tokens, never padding; negative ones count from the end of the prompt; those past the prompt are
            reached as tokens are generated.

    Of two edits at one layer, the one entered last runs first. Where processes share the model's weights, all go on
    from what `fn` gives in the first.

    Raises:
        ValueError: for a layer out of range, a result of another shape, unknown positions, or a position that was
            never reached.
    """
    layer = lm.check_layer(layer)
    if isinstance(positions, str) and positions not in ("all", "prompt", "last", *KINDS):
        raise _unknown(positions, f"'all', 'prompt', {_KINDS}, 'last'")
    named = positions is None or (isinstance(positions, str) and positions != "last")
    numbers = [] if named else position_list(positions)
    unreached = {n for n in numbers if n >= 0}
    longest = 0

    def change(layer: int, state: State, where: Where) -> State:
        nonlocal longest
        if numbers:
            check_positions([n for n in numbers if n < 0], where.lengths.tolist())
            unreached.difference_update(where.index.unique().tolist())
        if isinstance(positions, str) and positions in NAMES and not where.continued:
            check_met(where.select(positions).sum(1).tolist(), positions)
        longest = max(longest, int(where.index.max()) + 1)
        new = fn(state.clone())  # a copy, so that a function that works in place cannot reach other positions
        if not isinstance(new, Tensor) or new.shape != state.shape:
            got = f"the shape {tuple(new.shape)}" if isinstance(new, Tensor) else repr(new)
            raise ValueError(
                f"the edit at layer {layer} returned {got}: return a tensor of the shape it was given, "
                f"{tuple(state.shape)}"
            )
        chosen = where.select(positions if named else numbers).to(state.device)
        return torch.where(chosen[..., None], parallel.agreed(lm.model, new.to(state.dtype)), state)

    with _hooked(lm, [layer], change, first=True):
        yield
    if longest and unreached:
        raise ValueError(
            f"position {min(unreached)} was never reached, so nothing was edited there: the longest text that ran "
            f"has {longest} tokens, counted from 0"
        )


@contextmanager
def resumed(lm: LanguageModel, layer: int, state: State) -> Iterator[None]:
    """Let the model begin at the output of block `layer`: `state` is taken as computed, and the blocks below rest.

    Under many edits of one layer the blocks below it compute the same again and again; this leaves them out (but
    block 1, which says what a block returns). Inside, run the batch that `state` was recorded from, padded as it was
    then, and without a cache. Edits at `layer` or above it act as ever; those below would act on `state`.
    """
    layer = lm.check_layer(layer)
    below = lm.blocks[:layer]
    before = [vars(block).get("forward") for block in below]  # of an offloaded block there is one already
    as_tuple = False

    def first(*args: Any, run: Callable = lm.blocks[0].forward, **kwargs: Any) -> Any:
        nonlocal as_tuple
        out = run(*args, **kwargs)
        as_tuple = isinstance(out, tuple)
        return (state, *out[1:]) if as_tuple else state

    def rest(*args: Any, **kwargs: Any) -> Any:
        given = args[0] if args else kwargs["hidden_states"]
        return (given,) if as_tuple else given

    try:
        for number, block in enumerate(below):
            block.forward = rest if number else first
        yield
    finally:
        for block, old in zip(below, before, strict=True):
            if old is None:
                vars(block).pop("forward", None)
            else:
                block.forward = old


def position_list(positions: Positions) -> list[int]:
    """Positions given as "last", one number or several, as a list of numbers.

    Raises:
        ValueError: for any other word, or none at all.
    """
    if isinstance(positions, str):
        if positions != "last":
            raise _unknown(positions, f"'all', {_KINDS}, 'last'")
        return [-1]
    if isinstance(positions, int | np.integer):
        return [int(positions)]
    if positions is None or len(positions) == 0:
        raise _unknown(positions, f"'all', {_KINDS}, 'last'")
    return [int(p) for p in positions]


def _unknown(positions: Positions, words: str) -> ValueError:
    return ValueError(f"positions is {positions!r}: give {words}, a number or a list of numbers")


def check_positions(positions: Sequence[int], lengths: Sequence[int]) -> None:
    """Raise a ValueError that names the first text that lacks one of the positions."""
    for text, length in enumerate(lengths):
        for position in positions:
            if not -length <= position < length:
                raise ValueError(
                    f"position {position} is out of range: text {text} has {length} tokens, so give 0 to "
                    f"{length - 1}, or -1 (its last) to {-length}"
                )


def check_met(tokens: Sequence[int], kind: str) -> None:
    """Raise a ValueError that names the first text without a picture or sound, given how many such tokens each has."""
    if 0 in tokens:
        raise ValueError(
            f"positions is {kind!r}, and text {list(tokens).index(0)} has no {NAMES[kind]}: give Example({kind}=...)"
        )


@contextmanager
def _hooked(
    lm: LanguageModel, layers: Sequence[int], see: Callable[[int, State, Where], State], first: bool
) -> Iterator[None]:
    """Pass each layer's state through `see`; with `first`, before hooks that are there already."""
    handles: list[RemovableHandle] = []
    try:
        tracker = _Tracker(lm)
        handles.append(lm.decoder.register_forward_pre_hook(tracker, with_kwargs=True, prepend=True))
        for layer in layers:
            handles.append(_hook_layer(lm, layer, see, tracker, first))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook_layer(
    lm: LanguageModel, layer: int, see: Callable[[int, State, Where], State], tracker: "_Tracker", first: bool
) -> RemovableHandle:
    def on_input(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        if args:
            return (see(0, args[0], tracker.where), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": see(0, kwargs["hidden_states"], tracker.where)}

    def on_output(_: nn.Module, __: tuple, output: Any) -> Any:
        # In transformers 5 most blocks return a tensor, BLOOM's and Chameleon's a tuple; before 5 nearly all a tuple.
        if isinstance(output, tuple):
            return (see(layer, output[0], tracker.where), *output[1:])
        return see(layer, output, tracker.where)

    if layer == 0:
        return lm.blocks[0].register_forward_pre_hook(on_input, with_kwargs=True, prepend=first)
    return lm.blocks[layer - 1].register_forward_hook(on_output, prepend=first)


class _Tracker:
    """A forward pre-hook on the decoder that works out which tokens each pass is about."""

    where: Where

    def __init__(self, lm: LanguageModel):
        self.soft = lm.soft

    def __call__(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        given = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments
        given |= given.get("kwargs", {})
        ids = given.get("input_ids")
        texts, tokens = (ids if ids is not None else given["inputs_embeds"]).shape[:2]
        device = (ids if ids is not None else given["inputs_embeds"]).device
        cache = given.get("past_key_values")
        past = int(cache.get_seq_length()) if cache is not None else 0
        mask = given.get("attention_mask")
        if isinstance(mask, Tensor) and mask.ndim == 2:
            index = torch.where(mask > 0, mask.long().cumsum(1) - 1, -1)[:, -tokens:].to(device)
        elif mask is not None:
            raise ValueError(
                "the attention mask of this pass is not one of texts by tokens, as with a static cache, so padding "
                "cannot be told from text: generate with the default cache"
            )
        elif isinstance(given.get("position_ids"), Tensor):
            index = given["position_ids"].long().expand(texts, tokens)
        else:
            index = torch.arange(past, past + tokens, device=device).expand(texts, tokens)
        lengths = (index >= 0).sum(1)
        if past:
            # Of a cache that was filled before this block, all that is in it is the prompt.
            lengths = self.where.lengths if hasattr(self, "where") else index.amax(1) + 1 - lengths
        kinds = torch.zeros_like(index)
        if self.soft is not None:
            # Some models embed their ids before the decoder runs, others within it.
            found = self.soft.kinds if ids is None else self.soft.kinds_of(ids)
            kinds = kinds if found is None or found.shape != index.shape else found.to(device)
        self.where = Where(index, lengths, past > 0, kinds)
