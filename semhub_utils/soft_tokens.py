"""Inputs that are more than text: pictures as soft tokens, vectors that stand where embeddings of words stand.

A soft token gets a token id past the end of the vocabulary. The embedding of the model is taught to look such ids up,
so that whatever takes texts (states, lens, edits, steering, generation) takes pictures among them.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from semhub_utils.data.picture_files import check_file, open_picture

Picture = str | Path | Image.Image
# What a picture becomes: token ids, None where a soft token stands, and the soft tokens in order.
Encoded = tuple[list[int | None], Float[Tensor, "soft d_model"]]

IMAGE = "<image>"
KINDS = ("text", "image")
_APART = 2**28  # between the ids of one table and those of another over the same embedding


@dataclass(frozen=True)
class Example:
    """One input of a model that sees: a picture (a file or a Pillow image), and text.

    The picture comes first, or where `<image>` stands in the text. Without a picture it is the text alone.
    """

    text: str = ""
    image: Picture | None = None

    def __post_init__(self) -> None:
        if self.image is not None and self.text.count(IMAGE) > 1:
            raise ValueError(f"the text has {IMAGE} {self.text.count(IMAGE)} times: an Example has one picture")
        if self.image is None and IMAGE in self.text:
            raise ValueError(f"the text says where the picture stands, {IMAGE}, and there is none: give `image`")

    @property
    def key(self) -> str:
        """16 hex digits over the text and what the picture shows."""
        seen = "" if self.image is None else digest(self.image)
        return hashlib.sha256(f"{len(self.text)} {self.text}{seen}".encode()).hexdigest()[:16]


Text = str | Example


class SoftTokens:
    """The soft tokens of the pictures seen so far, and the embedding's way to them.

    A picture is encoded once: its soft tokens are kept, float32, for as long as the model is (40 KB a picture in the
    embedded image model).
    """

    def __init__(self, embedding: nn.Module, encode: Callable[[list[Picture]], list[Encoded]]):
        """`embedding` maps token ids to vectors; `encode` turns pictures into ids and soft tokens."""
        tables = getattr(embedding, "_soft_tables", 0)
        embedding._soft_tables = tables + 1  # type: ignore[assignment]
        self.first = int(embedding.weight.shape[0]) + tables * _APART  # type: ignore[index]
        self.kinds: Int[Tensor, "*shape"] | None = None
        self._encode = encode
        self._seen: dict[str, list[int]] = {}
        self._table: list[Float[Tensor, " d_model"]] = []
        embedding.register_forward_pre_hook(self._take_out)
        embedding.register_forward_hook(self._put_in)

    def ids(self, pictures: Sequence[Picture]) -> list[list[int]]:
        """The token ids of each picture; those not seen before are encoded, all in one call."""
        keys = [digest(picture) for picture in pictures]
        new = {key: picture for key, picture in zip(keys, pictures, strict=True) if key not in self._seen}
        for key, (template, vectors) in zip(new, self._encode(list(new.values())) if new else [], strict=True):
            if template.count(None) != len(vectors):
                raise ValueError(f"a picture has {template.count(None)} places for {len(vectors)} soft tokens")
            start = self.first + len(self._table)
            self._table += list(vectors.float().cpu())
            places = iter(range(start, start + len(vectors)))
            self._seen[key] = [next(places) if one is None else one for one in template]
        return [self._seen[key] for key in keys]

    def kinds_of(self, ids: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
        """Of which of `KINDS` each token is, by number."""
        return ((ids >= self.first) & (ids < self.first + len(self._table))).long()

    def _take_out(self, _: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        self._ids = args[0]
        self.kinds = self.kinds_of(args[0])
        return (args[0].masked_fill(self.kinds > 0, 0), *args[1:])

    def _put_in(self, _: nn.Module, __: tuple, embedded: Tensor) -> Tensor:
        soft = self.kinds_of(self._ids) > 0
        if not soft.any():
            return embedded
        rows = torch.stack([self._table[i] for i in (self._ids[soft] - self.first).tolist()])
        made = embedded.clone()
        made[soft.to(embedded.device)] = rows.to(embedded.device, embedded.dtype)
        return made


def digest(picture: Picture) -> str:
    """A hash of a picture: of the bytes of a file, or of the pixels of an image."""
    if isinstance(picture, Image.Image):
        data = f"{picture.mode} {picture.size}".encode() + picture.tobytes()
        return hashlib.sha256(data + repr(picture.getpalette()).encode()).hexdigest()
    return hashlib.sha256(check_file(Path(picture)).read_bytes()).hexdigest()


def hub_pictures(model: Any, processor: Any) -> Callable[[list[Picture]], list[Encoded]]:
    """What turns pictures into soft tokens in an image model of the hub: its processor, encoder and projector.

    It holds for models whose pictures enter as vectors in the stream of tokens and nowhere else: LLaVA, Idefics3,
    SmolVLM and Chameleon. The ids between and around them (rows of tiles, the end of the picture) stay as they are.
    """
    marker = getattr(processor, "image_token", None) or IMAGE
    placeholder = processor.tokenizer.convert_tokens_to_ids(str(marker))
    lead = processor.tokenizer("").input_ids
    # Chameleon's processor ends every text as a turn of a chat unless it is told not to.
    how = {"return_for_text_completion": True} if model.config.model_type == "chameleon" else {}

    def encode(pictures: list[Picture]) -> list[Encoded]:
        found = []
        for picture in pictures:
            image = open_picture(picture, None)
            made = processor(images=[image], text=str(marker), return_tensors="pt", **how)
            ids = made["input_ids"][0].tolist()
            pixels = {key: value.to(model.device) for key, value in made.items() if key.startswith("pixel")}
            pixels["pixel_values"] = pixels["pixel_values"].to(model.dtype)
            with torch.no_grad():
                out = model.get_image_features(**pixels)
            vectors = getattr(out, "pooler_output", out)  # before transformers 5 the features themselves
            vectors = torch.cat([v.flatten(0, -2) for v in vectors]) if len(vectors) else vectors
            ids = ids[len(lead) :] if ids[: len(lead)] == lead else ids
            found.append(([None if one == placeholder else one for one in ids], vectors))
        return found

    return encode
