"""Inputs that are more than text: pictures and sounds as soft tokens, vectors where embeddings of words stand.

A soft token gets a token id past the end of the vocabulary. The embedding of the model is taught to look such ids up,
so that whatever takes texts (states, lens, edits, steering, generation) takes pictures and sounds among them.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from semhub_utils.data.files import check_file
from semhub_utils.data.picture_files import open_picture
from semhub_utils.data.sound_files import RATE, Sound, open_sound
from semhub_utils.parallel import computes_on

Picture = str | Path | Image.Image
# What a picture or a sound becomes: token ids, None where a soft token stands, and the soft tokens in order.
Encoded = tuple[list[int | None], Float[Tensor, "soft d_model"]]
Encoder = Callable[[list[Any]], list[Encoded]]

# Of what kind a token is; one that is no text stands for a part of a picture or of a sound.
KINDS = ("text", "image", "audio")
NAMES = {"image": "picture", "audio": "sound"}
MARKERS = {"image": "<image>", "audio": "<audio>"}
IMAGE = MARKERS["image"]
_APART = 2**28  # between the ids of one table and those of another over the same embedding


@dataclass(frozen=True, eq=False)
class Example:
    """One input of a model that sees or hears: a picture or a sound, and text.

    A picture is a file or a Pillow image; a sound is a file, or samples of one or more channels at 16 kHz (see
    `data.open_sound` for those of another rate, and for a part of a long file). It comes first, or where `<image>` or
    `<audio>` stands in the text. Without either it is the text alone.
    """

    text: str = ""
    image: Picture | None = None
    audio: Sound | None = None

    def __post_init__(self) -> None:
        if self.image is not None and self.audio is not None:
            raise ValueError("the Example has a picture and a sound: it has one of them, or text alone")
        for kind, marker in MARKERS.items():
            times = self.text.count(marker)
            if self.kind == kind and times > 1:
                raise ValueError(f"the text has {marker} {times} times: an Example has one {NAMES[kind]}")
            if self.kind != kind and times:
                raise ValueError(
                    f"the text says where the {NAMES[kind]} stands, {marker}, and there is none: give `{kind}`"
                )

    @property
    def kind(self) -> str:
        """Which of `KINDS` it brings beside its text; "text" for text alone."""
        return "image" if self.image is not None else "audio" if self.audio is not None else "text"

    @property
    def brings(self) -> Any:
        """Its picture or its sound."""
        return self.image if self.image is not None else self.audio

    @property
    def key(self) -> str:
        """16 hex digits over the text and what the picture shows or the sound lets hear."""
        met = "" if self.kind == "text" else digest(self.brings)
        return hashlib.sha256(f"{len(self.text)} {self.text}{met}".encode()).hexdigest()[:16]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Example) or (self.text, self.kind) != (other.text, other.kind):
            return False
        mine, theirs = self.brings, other.brings
        # Two arrays are compared number by number, which `==` leaves undecided.
        return (
            np.array_equal(mine, theirs)
            if isinstance(mine, np.ndarray)
            else type(mine) is type(theirs) and mine == theirs
        )

    def __hash__(self) -> int:
        return hash((self.text, self.kind))


Text = str | Example


class SoftTokens:
    """The soft tokens of the pictures and sounds met so far, and the embedding's way to them.

    Each is encoded once: its soft tokens are kept, float32, for as long as the model is (40 KB a picture and 20 KB a
    sound in the embedded models).
    """

    def __init__(self, embedding: nn.Module, encoders: Mapping[str, Encoder]):
        """`embedding` maps token ids to vectors; `encoders` turn inputs of each kind into ids and soft tokens."""
        tables = getattr(embedding, "_soft_tables", 0)
        embedding._soft_tables = tables + 1  # type: ignore[assignment]
        self.first = int(embedding.weight.shape[0]) + tables * _APART  # type: ignore[index]
        self.kinds: Int[Tensor, "*shape"] | None = None
        self.encoders = dict(encoders)
        self._met: dict[str, list[int]] = {}
        self._table: list[Float[Tensor, " d_model"]] = []
        self._kind: list[int] = []
        embedding.register_forward_pre_hook(self._take_out)
        embedding.register_forward_hook(self._put_in)

    def ids(self, inputs: Sequence[Any], kind: str = "image") -> list[list[int]]:
        """The token ids of each picture or sound; those not met before are encoded, all in one call."""
        keys = [digest(one) for one in inputs]
        new = {key: one for key, one in zip(keys, inputs, strict=True) if key not in self._met}
        made = self.encoders[kind](list(new.values())) if new else []
        for key, (template, vectors) in zip(new, made, strict=True):
            if template.count(None) != len(vectors):
                raise ValueError(f"a {NAMES[kind]} has {template.count(None)} places for {len(vectors)} soft tokens")
            start = self.first + len(self._table)
            self._table += list(vectors.float().cpu())
            self._kind += [KINDS.index(kind)] * len(vectors)
            places = iter(range(start, start + len(vectors)))
            self._met[key] = [next(places) if one is None else one for one in template]
        return [self._met[key] for key in keys]

    def kinds_of(self, ids: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
        """Of which of `KINDS` each token is, by number."""
        own = (ids >= self.first) & (ids < self.first + len(self._table))
        kinds = torch.tensor([0, *self._kind], device=ids.device)
        return kinds[torch.where(own, ids - self.first + 1, 0)]

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


def digest(one: Picture | Sound) -> str:
    """A hash of a picture or a sound: of the bytes of a file, of the pixels of an image, of samples."""
    if isinstance(one, Image.Image):
        data = f"{one.mode} {one.size}".encode() + one.tobytes()
        return hashlib.sha256(data + repr(one.getpalette()).encode()).hexdigest()
    if isinstance(one, np.ndarray):
        return hashlib.sha256(f"{one.dtype} {one.shape}".encode() + one.tobytes()).hexdigest()
    path, hashed = check_file(Path(one), "a picture or a sound"), hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):  # a recording may be larger than the memory
            hashed.update(block)
    return hashed.hexdigest()


def hub_pictures(model: Any, processor: Any, told: Mapping[str, Any] | None = None) -> Encoder:
    """What turns pictures into soft tokens in an image model of the hub: its processor, encoder and projector.

    It holds for models whose pictures enter as vectors in the stream of tokens and nowhere else (`registry.FAMILIES`).
    The ids between and around them (rows of tiles, the end of the picture) stay as they are. `told` is what the
    processor has to be told beside.
    """
    marker = getattr(processor, "image_token", None) or IMAGE
    placeholder = processor.tokenizer.convert_tokens_to_ids(str(marker))
    lead = processor.tokenizer("").input_ids

    def encode(pictures: list[Picture]) -> list[Encoded]:
        found = []
        device = computes_on(model.get_input_embeddings())  # of a model that is offloaded `model.device` is none
        for picture in pictures:
            image = open_picture(picture, None)
            made = processor(images=[image], text=str(marker), return_tensors="pt", **(told or {}))
            ids = made["input_ids"][0].tolist()
            pixels = {key: value.to(device) for key, value in made.items() if key.startswith("pixel")}
            pixels["pixel_values"] = pixels["pixel_values"].to(model.dtype)
            with torch.no_grad():
                out = model.get_image_features(**pixels)
            vectors = getattr(out, "pooler_output", out)  # before transformers 5 the features themselves
            vectors = torch.cat([v.flatten(0, -2) for v in vectors]) if len(vectors) else vectors
            ids = ids[len(lead) :] if ids[: len(lead)] == lead else ids
            found.append(([None if one == placeholder else one for one in ids], vectors))
        return found

    return encode


def hub_sounds(model: Any, processor: Any, told: Mapping[str, Any] | None = None) -> Encoder:
    """What turns sounds into soft tokens in an audio model of the hub: its processor, its encoder and its projector.

    It holds for models made as those of `registry.FAMILIES` are. A sound of n seconds becomes about 25 n soft tokens;
    the marks before and after them stay as they are. `told` is what the processor has to be told beside.
    """
    marker = processor.audio_token
    placeholder = processor.tokenizer.convert_tokens_to_ids(marker)
    marked = f"{processor.audio_bos_token}{marker}{processor.audio_eos_token}"
    lead = processor.tokenizer("").input_ids

    def encode(sounds: list[Sound]) -> list[Encoded]:
        found = []
        for sound in sounds:
            heard = open_sound(sound)
            made = processor(text=marked, audio=[heard], sampling_rate=RATE, return_tensors="pt", **(told or {}))
            ids = made["input_ids"][0].tolist()
            ids = ids[len(lead) :] if ids[: len(lead)] == lead else ids
            with torch.no_grad():
                vectors = _heard(model, made["input_features"], made["feature_attention_mask"])
            found.append(([None if one == placeholder else one for one in ids], vectors[: ids.count(placeholder)]))
        return found

    return encode


def _heard(model: Any, columns: Tensor, mask: Tensor) -> Float[Tensor, "soft d_model"]:
    """The projector's output for one sound; padding is masked as transformers' own forward masks it."""
    tower = getattr(model, "model", model).audio_tower
    projector = getattr(model, "model", model).multi_modal_projector
    dtype, device = tower.conv1.weight.dtype, computes_on(model.get_input_embeddings())
    frames = (columns.shape[-1] - 2) // 2 + 1
    length = int(tower._get_feat_extract_output_lengths(mask.sum(-1))[0])
    away = torch.zeros(1, 1, frames, frames, dtype=dtype, device=device)
    away[..., length:] = torch.finfo(dtype).min
    states = tower(columns.to(device, dtype), attention_mask=away).last_hidden_state
    return projector(states)[0]
