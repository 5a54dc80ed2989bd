"""The table of models agrees with the registry, and its sizes with the architectures."""

import re

import pytest
import torch
import transformers
from torch import nn

import build_book
from semhub_utils import embedded
from semhub_utils.registry import REGISTRY

PAGE = (build_book.BOOK / "reference" / "models-and-hardware.md").read_text(encoding="utf-8")
ROWS = {
    cells[0].strip("`"): dict(
        zip(("source", "revision", "licence", "parameters", "bfloat16", "4 bit"), cells[1:], strict=False)
    )
    for line in PAGE.splitlines()
    if line.startswith("| `")
    for cells in [[cell.strip() for cell in line.strip("|").split("|")]]
    if len(cells) == 8
}
# The architectures as their makers publish them.
LLAMA_2 = dict(vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32)
LLAMA_3 = dict(vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32)
QWEN_SMALL = dict(vocab_size=151936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24)
QWEN_LARGE = dict(vocab_size=152064, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28)
SMOL = dict(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, tie_word_embeddings=True)
GROUPS = dict(num_key_value_heads=3)
CLIP = dict(
    hidden_size=1024,
    intermediate_size=4096,
    num_hidden_layers=24,
    num_attention_heads=16,
    image_size=336,
    patch_size=14,
    projection_dim=768,
)
SIGLIP = dict(
    hidden_size=768,
    intermediate_size=3072,
    num_hidden_layers=12,
    num_attention_heads=12,
    image_size=512,
    patch_size=16,
)
WHISPER = dict(
    d_model=1280,
    encoder_layers=32,
    encoder_attention_heads=20,
    encoder_ffn_dim=5120,
    num_mel_bins=128,
    max_source_positions=1500,
)
QWEN_OF_AUDIO = dict(vocab_size=156032, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32)
CONFIGS = {
    "gemma-3-270m": lambda: transformers.AutoConfig.from_pretrained(embedded.path()),
    "gemma-3-270m+efficientnet": lambda: transformers.AutoConfig.from_pretrained(embedded.path()),
    "gemma-3-270m+whisper-base": lambda: transformers.AutoConfig.from_pretrained(embedded.path()),
    "llama-2-7b": lambda: transformers.LlamaConfig(**LLAMA_2),
    "llama-3-8b": lambda: transformers.LlamaConfig(**LLAMA_3, num_key_value_heads=8),
    "baichuan-2-7b": lambda: transformers.LlamaConfig(**LLAMA_2 | {"vocab_size": 125_696}),
    "bloom-560m": lambda: transformers.BloomConfig(vocab_size=250880, hidden_size=1024, n_layer=24, n_head=16),
    "bloom-7b1": lambda: transformers.BloomConfig(vocab_size=250880, hidden_size=4096, n_layer=30, n_head=32),
    "qwen2.5-0.5b": lambda: transformers.Qwen2Config(
        **QWEN_SMALL, num_attention_heads=14, num_key_value_heads=2, tie_word_embeddings=True
    ),
    "qwen2.5-7b": lambda: transformers.Qwen2Config(**QWEN_LARGE, num_attention_heads=28, num_key_value_heads=4),
    "smollm2-135m-instruct": lambda: transformers.LlamaConfig(**SMOL, num_attention_heads=9, num_key_value_heads=3),
    "smollm2-135m": lambda: transformers.LlamaConfig(**SMOL, num_attention_heads=9, num_key_value_heads=3),
    "llava-1.5-7b": lambda: transformers.LlavaConfig(
        vision_config={"model_type": "clip_vision_model", "vocab_size": 32000, **CLIP},
        text_config={"model_type": "llama", **LLAMA_2, "vocab_size": 32064},
    ),
    "chameleon-7b": lambda: transformers.ChameleonConfig(
        vq_config={}, vocabulary_map={"<image>": 8711, "IMGIMGAAZ": 4}
    ),
    "smolvlm-256m": lambda: transformers.Idefics3Config(
        vision_config=SIGLIP,
        text_config={"model_type": "llama", **SMOL, "vocab_size": 49280, "num_attention_heads": 9, **GROUPS},
        scale_factor=4,
        tie_word_embeddings=False,
    ),
    "qwen2-audio-7b": lambda: transformers.Qwen2AudioConfig(
        audio_config={"model_type": "qwen2_audio_encoder", **WHISPER},
        text_config={"model_type": "qwen2", **QWEN_OF_AUDIO, "num_attention_heads": 32, "num_key_value_heads": 32},
    ),
}
SEEING = ("llava-1.5-7b", "chameleon-7b", "smolvlm-256m")


def test_every_model_of_the_registry_has_a_row_that_agrees():
    assert set(ROWS) == set(REGISTRY)
    for name, spec in REGISTRY.items():
        assert ROWS[name]["source"] == f"`{spec.source}`"
        assert ROWS[name]["licence"] == spec.licence
        shown = ROWS[name]["revision"].strip("`")
        assert spec.revision.startswith(shown.removesuffix("…")) if "…" in shown else spec.revision == shown


@pytest.mark.parametrize("name", ROWS)
def test_the_sizes_are_those_of_the_architecture(name):
    with torch.device("meta"):
        maker = transformers.AutoModelForImageTextToText if name in SEEING else transformers.AutoModelForCausalLM
        made = transformers.Qwen2AudioForConditionalGeneration if "audio" in name else maker.from_config
        model = made(CONFIGS[name]())
    count = sum(p.numel() for p in model.parameters())
    head = model.get_output_embeddings()
    matrices = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear) and m is not head)
    spec = REGISTRY[name]
    assert (spec.parameters, spec.matrices, spec.made_by) == (count, matrices, type(model).__name__)
    assert spec.blocks == model.config.get_text_config().num_hidden_layers
    assert ROWS[name]["parameters"] == f"{count:,}"
    assert ROWS[name]["bfloat16"] == f"{2 * count / 1e9:.1f} GB"
    assert ROWS[name]["4 bit"] == f"{(matrices * 4.5 / 8 + (count - matrices) * 2) / 1e9:.1f} GB"


def test_what_the_page_says_of_the_embedded_model_is_so():
    config = transformers.AutoConfig.from_pretrained(embedded.path())
    blocks, width, vocabulary = re.search(r"with (\d+) blocks, .*? width (\d+), .*? ([\d,]+) tokens", PAGE).groups()
    assert (int(blocks), int(width)) == (config.num_hidden_layers, config.hidden_size)
    assert int(vocabulary.replace(",", "")) == config.vocab_size
