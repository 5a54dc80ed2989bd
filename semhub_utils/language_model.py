"""A loaded model, and its parts under names that hold for every architecture."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import ModelOutput

from semhub_utils.parallel import computes_on, gathered
from semhub_utils.registry import ModelSpec
from semhub_utils.soft_tokens import MARKERS, NAMES, Example, SoftTokens, Text

_BLOCKS = ("layers", "h", "blocks")
_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm")


class LanguageModel:
    """A transformers model with its tokenizer, and one name for each part that the book uses.

    `model`, `tokenizer` and `spec` are what they are called; everything else is read off them. Calling it with
    texts runs the model and returns transformers' own output. A model with `soft` also takes pictures or sounds:
    wherever a text is asked for, it may be an `Example`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        spec: ModelSpec,
        soft: SoftTokens | None = None,
    ):
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.spec = spec
        self.soft = soft
        if tokenizer.pad_token_id is None:
            # Llama and GPT-2 have none; what stands under a mask of zeros does not matter.
            tokenizer.pad_token = tokenizer.eos_token

    def __repr__(self) -> str:
        return f"{self.spec.name}: {self.n_layers} blocks, d_model {self.d_model}, on {self.device}"

    @cached_property
    def decoder(self) -> nn.Module:
        """The stack of blocks with its embedding and final norm, without the head."""
        found = self.model.get_decoder()
        # Before transformers 5 a GPT-2 or a BLOOM gives itself, and an Idefics3 its encoder of pictures too.
        found = self.model.base_model if found is self.model else found
        return getattr(found, "text_model", found)

    @cached_property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks, in order."""
        return _part(self.decoder, _BLOCKS, "list of blocks")

    @cached_property
    def final_norm(self) -> nn.Module:
        """The norm between the last block and the head."""
        return _part(self.decoder, _NORMS, "final norm")

    @property
    def head(self) -> Any:
        """The unembedding: the linear map from the normed residual stream to the logits."""
        return self.model.get_output_embeddings()

    @property
    def n_layers(self) -> int:
        """The number of blocks."""
        return len(self.blocks)

    @property
    def d_model(self) -> int:
        """The width of the residual stream."""
        return self.model.config.get_text_config().hidden_size

    @property
    def device(self) -> torch.device:
        """Where inputs go: the device of the first weights."""
        return computes_on(self.model.get_input_embeddings())

    def encode(self, texts: Text | Sequence[Text]) -> dict[str, Int[Tensor, "texts tokens"]]:
        """Tokenize and pad a batch, with positions that count real tokens only.

        Padding goes to the side that `tokenizer.padding_side` says. Without `position_ids` a left-padded GPT-2
        is wrong by as much as its logits.

        Raises:
            ValueError: for an empty list, or a text without any token, named by its index.
        """
        tokens = self.token_ids(texts)
        return self.pad(tokens)

    def token_ids(self, texts: Text | Sequence[Text]) -> list[list[int]]:
        """The token ids of each text, special tokens included, not padded; errors as in `encode`."""
        given = [texts] if isinstance(texts, str | Example) else list(texts)
        if not given:
            raise ValueError("the list of texts is empty: give at least one text")
        for index, text in enumerate(given):
            if not isinstance(text, str | Example):
                raise TypeError(f"text {index} is {text!r}, a {type(text).__name__}: every text is a str or an Example")
            kind = text.kind if isinstance(text, Example) else "text"
            if kind == "text" and not (text.text if isinstance(text, Example) else text):
                raise ValueError(f"text {index} is empty: every text needs at least one character")
            if kind != "text" and (self.soft is None or kind not in self.soft.encoders):
                raise ValueError(
                    f"text {index} has a {NAMES[kind]}, and {self.spec.name} takes {' and '.join(self.spec.takes)}: "
                    f"load a model for it, such as sh.load('auto', takes={kind!r})"
                )
        written = [text.text if isinstance(text, Example) else text for text in given]
        tokens = self.cut(written)
        for kind in MARKERS:
            bring = {i: one.brings for i, one in enumerate(given) if isinstance(one, Example) and one.kind == kind}
            if not bring:
                continue
            for index, ids in zip(bring, self.soft.ids(list(bring.values()), kind), strict=True):  # type: ignore[union-attr]
                tokens[index] = self._around(ids, written[index], MARKERS[kind])
        if [] in tokens:
            index = tokens.index([])
            raise ValueError(
                f"text {index}, {written[index]!r}, has no token in {self.spec.name}: drop it or change it"
            )
        return tokens

    def _around(self, ids: list[int], text: str, marker: str) -> list[int]:
        """The tokens of a text around soft tokens, special tokens before both."""
        before, _, after = text.rpartition(marker) if marker in text else ("", "", text)
        start, rest = self.cut([before]), self.cut([after], special=False) if after else [[]]
        return start[0] + ids + rest[0]

    def kinds(self, tokens: list[int]) -> list[int]:
        """Of which of `soft_tokens.KINDS` (text, image, audio) each token of an input is, by number."""
        return [0] * len(tokens) if self.soft is None else self.soft.kinds_of(torch.tensor(tokens)).tolist()

    def cut(self, texts: list[str], special: bool = True) -> list[list[int]]:
        """The token ids of each text, unchecked; `special` puts the special tokens in."""
        # A part at a time: what the tokenizer notes of each token beside its id takes far more memory than the id, and
        # many short texts take three times as long at once.
        parts = (texts[start : start + 128] for start in range(0, len(texts), 128))
        return [ids for part in parts for ids in self.tokenizer(part, add_special_tokens=special).input_ids]

    def pad(self, tokens: list[list[int]], side: str | None = None) -> dict[str, Int[Tensor, "texts tokens"]]:
        """The model's inputs for lists of token ids: ids, mask and position ids, on the model's device."""
        batch = self.tokenizer.pad(
            {"input_ids": tokens}, return_tensors="pt", padding_side=side or self.tokenizer.padding_side
        )
        inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
        if self._takes("position_ids"):
            inputs["position_ids"] = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
        return {name: tensor.to(self.device) for name, tensor in inputs.items()}

    @torch.no_grad()
    def __call__(self, texts: Text | Sequence[Text], logits_to_keep: int = 0) -> ModelOutput:
        """Run the model on a batch of texts.

        Args:
            texts: one text or several.
            logits_to_keep: compute logits for this many final positions only; 0 means all, and with a large
                vocabulary they are most of the cost.

        Returns:
            transformers' output; `logits` has the shape (texts, tokens, vocabulary).
        """
        if self._takes("logits_to_keep"):
            return self.model(**self.encode(texts), logits_to_keep=logits_to_keep, use_cache=False)
        out = self.model(**self.encode(texts), use_cache=False)
        out.logits = out.logits[:, -logits_to_keep:]
        return out

    @torch.no_grad()
    def run(self, inputs: dict[str, Int[Tensor, "texts tokens"]]) -> None:
        """Run the blocks on encoded inputs for what hooks see of them; no logits are computed."""
        blocks = self.model.base_model
        # Before transformers 5 a text-only Gemma 3 names as its base what it does not have, and is given back itself.
        blocks = self.model.get_decoder() if blocks is self.model else blocks
        blocks(**inputs, use_cache=False)

    @torch.no_grad()
    def generate(
        self,
        texts: Text | Sequence[Text],
        max_new_tokens: int = 20,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> str | list[str]:
        """Continue each text, greedily or by seeded sampling, with the key-value cache.

        Args:
            texts: one text or several; batches are padded on the left whatever the tokenizer's side.
            max_new_tokens: at most this many tokens are added.
            temperature: 0 takes the likeliest token each time; above 0 samples.
            top_p: sample from the smallest set of tokens with this much probability.
            seed: of the sampling; the state of torch's own generator is left as it was.

        Returns:
            The continuations without the prompts: a str for a str, else a list.
        """
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {max_new_tokens}: give 1 or more")
        if not temperature >= 0:
            raise ValueError(f"temperature is {temperature}: give 0 for the likeliest token, or more to sample")
        inputs = self.pad(self.token_ids(texts), side="left")
        sampling = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0, "min_p": None}
        inputs.pop("position_ids", None)  # generate() makes its own, one step at a time
        devices = list(range(torch.cuda.device_count()))
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            out = self.model.generate(
                **inputs,
                max_new_tokens=max_new_tokens,
                pad_token_id=self.tokenizer.pad_token_id,
                # Some models come with settings of their own, under which greedy is not the likeliest token.
                num_beams=1,
                repetition_penalty=1.0,
                no_repeat_ngram_size=0,
                **(sampling if temperature > 0 else {"do_sample": False}),
            )
        new = self.tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return new[0] if isinstance(texts, str | Example) else new

    def _takes(self, argument: str) -> bool:
        return argument in inspect.signature(self.model.forward).parameters

    @contextmanager
    def unembedding(self) -> Iterator[tuple[Float[Tensor, "vocabulary d_model"], Float[Tensor, " vocabulary"] | None]]:
        """The head's weight and bias as plain tensors on the compute device, for as long as the block runs.

        A sharded weight is gathered and an offloaded one is brought in: slicing `head.weight` itself raises for
        the first and silently multiplies by nothing for the second.
        """
        brought_in = nullcontext()
        if hasattr(self.head, "_hf_hook"):
            from accelerate.utils import align_module_device  # late: only an offloaded or split model needs it

            brought_in = align_module_device(self.head)
        with brought_in:
            parts = [self.head.weight, getattr(self.head, "bias", None)]
            rows = self.model.config.get_text_config().vocab_size
            weight, bias = (p if p is None else gathered(self.model, p, rows) for p in parts)
            yield weight, bias  # type: ignore[misc]  # a head has a weight

    @property
    def head_device(self) -> torch.device:
        """Where the head computes, which on several GPUs may not be where the inputs go."""
        return computes_on(self.head)

    def scale_logits(self, logits: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """What this architecture does to `head(norm(h))` before it calls the result logits.

        Gemma 2 soft-caps, c tanh(x / c); Cohere multiplies; Granite divides; most do nothing.
        """
        config = self.model.config.get_text_config()
        if scale := getattr(config, "logit_scale", None):
            logits = logits * scale
        if scale := getattr(config, "logits_scaling", None):
            logits = logits / scale
        if cap := getattr(config, "final_logit_softcapping", None):
            logits = torch.tanh(logits / cap) * cap
        return logits

    def token_text(self, ids: Shaped[Tensor, " tokens"] | Sequence[int]) -> list[str]:
        """Each token id as the text that it adds, leading spaces kept."""
        # Llama 2 strips the space of whatever it decodes first, so each token is decoded behind another one.
        first = self.tokenizer("a", add_special_tokens=False).input_ids[-1]
        texts = self.tokenizer.batch_decode(
            [[first], *([first, int(i)] for i in ids)], clean_up_tokenization_spaces=False
        )
        return [text[len(texts[0]) :] for text in texts[1:]]

    def check_layer(self, layer: int | np.integer) -> int:
        """The layer itself if it exists; 0 is the embedding, k the output of block k.

        Raises:
            ValueError: naming the layer and the range.
        """
        if isinstance(layer, bool) or not isinstance(layer, int | np.integer) or not 0 <= layer <= self.n_layers:
            raise ValueError(
                f"layer {layer!r} is out of range: {self.spec.name} has {self.n_layers} blocks, so give 0 (the "
                f"embedding) to {self.n_layers} (the last block)"
            )
        return int(layer)


def _part(decoder: nn.Module, names: tuple[str, ...], what: str) -> Any:
    for name in names:
        if isinstance(getattr(decoder, name, None), nn.Module):
            return getattr(decoder, name)
    raise AttributeError(
        f"{type(decoder).__name__} has no {what} under any of the names {', '.join(names)}: "
        f"semhub_utils/language_model.py is where a new name is added"
    )
