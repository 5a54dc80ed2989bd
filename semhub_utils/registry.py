"""The models that the book knows, and the families whose pictures and sounds it can read.

No other file names a model, but for the embedded ones (`embedded`, `stitched`) and the mapping of one family whose own
code would have to be run (`baichuan`).
"""

from dataclasses import dataclass, field
from typing import Any

from transformers import AutoModelForImageTextToText, Qwen2AudioForConditionalGeneration

from semhub_utils import embedded

# What this book calls the middle of a model, as shares of its blocks; what reads or steers there looks between them.
MIDDLE = (0.35, 0.85)

# How a word that is a target carries its space.
_MARK = "before the word"
_MARK_FIRST = "before the word, the first of a text too; a blank token before a script without spaces"


@dataclass(frozen=True)
class ModelSpec:
    """What the book knows about a model before it is loaded.

    `source` is a hub id, a folder, or `package:NAME`; `revision` a hub commit or the hash of the weights; `takes` says
    what it reads: text, and an image or audio where it can see or hear. `made_by` is the class of transformers,
    `blocks` how many blocks it has, `parameters` how many weights and `matrices` how many of them rounding to 4 or 8
    bit makes smaller; 0 where they are not known before. `space` says how a word that is a target carries its space.
    """

    name: str
    source: str
    revision: str = "main"
    licence: str = "see its model card"
    takes: tuple[str, ...] = ("text",)
    made_by: str = ""
    blocks: int = 0
    parameters: int = 0
    matrices: int = 0
    space: str = ""
    good_for: str = ""

    @property
    def gated(self) -> bool:
        """Whether the hub asks for an account and consent to the licence."""
        return "gated" in self.licence

    def gigabytes(self, quantize: str | None = None, bytes_each: int = 2) -> float:
        """What the weights take, in units of 10^9 bytes.

        In 4 bit a number of a matrix takes 4.5 bits with its scale, in 8 bit 8; the embedding, the unembedding and the
        norms stay at `bytes_each`, which is 2 in bfloat16 and 4 in float32.
        """
        small = {"4bit": 4.5 / 8, "8bit": 1.0}.get(quantize or "", float(bytes_each))
        return (self.matrices * small + (self.parameters - self.matrices) * bytes_each) / 1e9


@dataclass(frozen=True)
class Family:
    """What a family of the hub brings beside text, the class that loads it, and what its processor has to be told."""

    kind: str
    maker: Any
    told: dict[str, Any] = field(default_factory=dict)


# Their pictures and sounds enter as vectors in the stream of tokens and nowhere else, which is what `hub_pictures` and
# `hub_sounds` need. Chameleon's processor ends every text as a turn of a chat unless it is told not to.
FAMILIES = {
    "llava": Family("image", AutoModelForImageTextToText),
    "chameleon": Family("image", AutoModelForImageTextToText, {"return_for_text_completion": True}),
    "idefics3": Family("image", AutoModelForImageTextToText),
    "smolvlm": Family("image", AutoModelForImageTextToText),
    "qwen2_audio": Family("audio", Qwen2AudioForConditionalGeneration),
}

# Their states pass the largest number of float16, 65,504; a GPU without bfloat16 computes them in float32.
TOO_LARGE_FOR_FLOAT16 = ("gemma", "gemma2", "gemma3", "gemma3_text")

_IMAGE, _AUDIO = ("text", "image"), ("text", "audio")
_EMBEDDED: dict[str, Any] = {
    "source": f"package:{embedded.PACKAGE}",
    "revision": f"sha256:{embedded.SHA256}",
    "licence": "Gemma terms",
    "made_by": "Gemma3ForCausalLM",
    "blocks": 18,
    "parameters": 268_098_176,
    "matrices": 100_270_080,
    "space": _MARK,
}


def _spec(name: str, source: str, revision: str, licence: str, made_by: str, sizes: tuple, **more: Any) -> ModelSpec:
    blocks, parameters, matrices = sizes
    sized = {"blocks": blocks, "parameters": parameters, "matrices": matrices, "space": _MARK}
    return ModelSpec(name, source, revision, licence, made_by=made_by, **(sized | more))


# The commits are those that public repositories record for their runs of these models; "main" where none was found.
_SPECS = (
    ModelSpec("gemma-3-270m", good_for="every figure of the book; 1.1 GB in float32, as a CPU uses it", **_EMBEDDED),
    ModelSpec(
        "gemma-3-270m+efficientnet",
        takes=_IMAGE,
        good_for="the same with eyes: another 3,371,008 in the picture encoder and 819,840 in the projector",
        **_EMBEDDED,
    ),
    ModelSpec(
        "gemma-3-270m+whisper-base",
        takes=_AUDIO,
        good_for="the same with ears: another 20,590,592 in the speech encoder and 656,000 in the projector",
        **_EMBEDDED,
    ),
    _spec(
        "llama-2-7b",
        "meta-llama/Llama-2-7b-hf",
        "01c7f73d771dfac7d292323805ebc428287df4f9",
        "Llama 2 (gated)",
        "LlamaForCausalLM",
        (32, 6_738_415_616, 6_476_005_376),
        space=_MARK_FIRST,
        good_for="a model of Wu et al. (2024), and the one in which Wendler et al. (2024) saw English in the middle",
    ),
    _spec(
        "llama-3-8b",
        "meta-llama/Meta-Llama-3-8B",
        "8cde5ca8380496c9a6cc7ef3a8b46a0372a1d920",
        "Llama 3 (gated)",
        "LlamaForCausalLM",
        (32, 8_030_261_248, 6_979_321_856),
        good_for="a model of Wu et al. (2024)",
    ),
    _spec(
        "baichuan-2-7b",
        "baichuan-inc/Baichuan2-7B-Base",
        "f9d4d8dd2f7a3dbede3bda3b0cf0224e9272bbe5",
        "Baichuan 2",
        "LlamaForCausalLM",
        (32, 7_505_973_248, 6_476_005_376),
        good_for="a model of Wu et al. (2024), trained on Chinese and English: what anchors there?",
    ),
    _spec(
        "bloom-560m",
        "bigscience/bloom-560m",
        "ac2ae5fab2ce3f9f40dc79b5ca9f637430d24971",
        "BLOOM RAIL 1.0",
        "BloomForCausalLM",
        (24, 559_214_592, 301_989_888),
        good_for="a small model of 46 languages: does English still anchor?",
    ),
    _spec(
        "bloom-7b1",
        "bigscience/bloom-7b1",
        "850ba1758a7744fedae78caadc152625133b1677",
        "BLOOM RAIL 1.0",
        "BloomForCausalLM",
        (30, 7_069_016_064, 6_039_797_760),
        good_for="a model of Wu et al. (2024): the same question at the size of the Llamas",
    ),
    _spec(
        "qwen2.5-0.5b",
        "Qwen/Qwen2.5-0.5B",
        "060db6499f32faf8b98477b0a26969ef7d8b9987",
        "Apache-2.0",
        "Qwen2ForCausalLM",
        (24, 494_032_768, 357_826_560),
        good_for="a second small model, strong in Chinese and English",
    ),
    _spec(
        "qwen2.5-7b",
        "Qwen/Qwen2.5-7B",
        "d149729398750b98c0af14eb82c78cfe92750796",
        "Apache-2.0",
        "Qwen2ForCausalLM",
        (28, 7_615_616_512, 6_525_288_448),
        good_for="a large model without an account",
    ),
    _spec(
        "smollm2-135m-instruct",
        f"package:{embedded.CONTROL_PACKAGE}",
        f"sha256:{embedded.CONTROL_SHA256}",
        "Apache-2.0",
        "LlamaForCausalLM",
        (30, 134_515_008, 106_168_320),
        good_for="the control that needs no hub: trained on English and code, then tuned to chat; 0.5 GB in float32",
    ),
    _spec(
        "smollm2-135m",
        "HuggingFaceTB/SmolLM2-135M",
        "93efa2f097d58c2a74874c7e644dbc9b0cee75a2",
        "Apache-2.0",
        "LlamaForCausalLM",
        (30, 134_515_008, 106_168_320),
        good_for="a control: trained on English and code",
    ),
    _spec(
        "llava-1.5-7b",
        "llava-hf/llava-1.5-7b-hf",
        "b234b804b114d9e37bb655e11cbbb5f5e971b7a9",
        "Llama 2",
        "LlavaForConditionalGeneration",
        (32, 7_063_427_072, 6_798_966_784),
        takes=_IMAGE,
        space=_MARK_FIRST,
        good_for="an image model of Wu et al. (2024), stitched as the embedded one is, and tuned",
    ),
    _spec(
        "chameleon-7b",
        "facebook/chameleon-7b",
        "main",
        "Chameleon research (gated)",
        "ChameleonForConditionalGeneration",
        (32, 7_043_090_432, 6_476_005_376),
        takes=_IMAGE,
        good_for="an image model of Wu et al. (2024) that was trained on both from the start",
    ),
    _spec(
        "smolvlm-256m",
        "HuggingFaceTB/SmolVLM-256M-Base",
        "main",
        "Apache-2.0",
        "Idefics3ForConditionalGeneration",
        (30, 256_484_928, 198_180_864),
        takes=_IMAGE,
        good_for="the smallest image model that was trained as one",
    ),
    _spec(
        "qwen2-audio-7b",
        "Qwen/Qwen2-Audio-7B",
        "dd84470756e6277a71d4d7188773a43cde92696e",
        "Apache-2.0",
        "Qwen2AudioForConditionalGeneration",
        (32, 8_397_094_912, 7_110_393_856),
        takes=_AUDIO,
        good_for="an audio model of the same make: speech encoder, one linear map, language model, all trained on",
    ),
)
REGISTRY: dict[str, ModelSpec] = {spec.name: spec for spec in _SPECS}

DEFAULT = "gemma-3-270m"
# What "auto" is, by what a chapter gives the model to read: the embedded one, and the larger one for a GPU, ungated.
AUTO = {
    "text": (DEFAULT, "qwen2.5-7b"),
    "image": ("gemma-3-270m+efficientnet", "llava-1.5-7b"),
    "audio": ("gemma-3-270m+whisper-base", "qwen2-audio-7b"),
}
