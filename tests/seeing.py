"""Image and audio models of the hub with random weights: the true classes, with their true processors."""

import torch
import transformers
from transformers import (
    ChameleonConfig,
    ChameleonForConditionalGeneration,
    ChameleonImageProcessor,
    ChameleonProcessor,
    CLIPImageProcessor,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    WhisperFeatureExtractor,
)

BLOCK = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}


def tiny_llava(tokenizer_of):
    tokenizer = tokenizer_of("metaspace", True, False, "left")
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    image = tokenizer.convert_tokens_to_ids("<image>")
    vision = {**BLOCK, "num_hidden_layers": 2, "image_size": 8, "patch_size": 4, "projection_dim": 32}
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config={"model_type": "clip_vision_model", **vision},
        text_config={"model_type": "llama", **BLOCK, "vocab_size": len(tokenizer), "initializer_range": 0.2},
        image_token_index=image,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    model = LlavaForConditionalGeneration(config).float()
    square = {"height": 8, "width": 8}
    resized = CLIPImageProcessor(size={"shortest_edge": 8}, crop_size=square)
    kept = {"patch_size": 4, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    return model.eval(), LlavaProcessor(resized, tokenizer, **kept)


def tiny_chameleon(tokenizer_of):
    tokenizer = tokenizer_of("metaspace", True, True, "left")
    codes = [f"IMGIMG{letter}Z" for letter in "ABCDEFGHIJ"]
    tokenizer.add_tokens(["<image>", "<racm3:break>", "<eoss>", "<sep>", *codes], special_tokens=True)
    tokenizer.sep_token = "<sep>"
    if transformers.__version__.startswith("4."):
        tokenizer.__class__ = transformers.LlamaTokenizerFast  # its processor asks for the name and nothing else
    vocabulary = {name: tokenizer.convert_tokens_to_ids(name) for name in ["<image>", *codes]}
    pixels = {"resolution": 8, "base_channels": 32, "channel_multiplier": [1, 1], "num_res_blocks": 1}
    torch.manual_seed(0)
    config = ChameleonConfig(
        **BLOCK,
        vocab_size=len(tokenizer),
        num_key_value_heads=4,
        vocabulary_map=vocabulary,
        initializer_range=0.2,
        vq_config={**pixels, "num_embeddings": 10, "embed_dim": 16, "latent_channels": 16, "attn_resolutions": []},
    )
    square = {"height": 8, "width": 8}
    resized = ChameleonImageProcessor(size={"shortest_edge": 8}, crop_size=square)
    return ChameleonForConditionalGeneration(config).float().eval(), ChameleonProcessor(resized, tokenizer, 16)


def tiny_idefics3(tokenizer_of):
    tokenizer = tokenizer_of("metaspace", True, True, "left")
    tiles = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    around = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
    tokenizer.add_tokens([*around, *tiles], special_tokens=True)
    torch.manual_seed(0)
    config = Idefics3Config(
        vision_config={**BLOCK, "num_hidden_layers": 2, "image_size": 16, "patch_size": 4},
        text_config={"model_type": "llama", **BLOCK, "vocab_size": len(tokenizer), "initializer_range": 0.2},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=0,
    )
    resized = Idefics3ImageProcessor(size={"longest_edge": 32}, max_image_size={"longest_edge": 16})
    return Idefics3ForConditionalGeneration(config).float().eval(), Idefics3Processor(resized, tokenizer, 4)


def tiny_qwen2_audio(tokenizer_of):
    tokenizer = tokenizer_of("bytes", False, True, "left")
    tokenizer.add_tokens(["<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"], special_tokens=True)
    torch.manual_seed(0)
    ears = {"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 64}
    config = Qwen2AudioConfig(
        audio_config={"model_type": "qwen2_audio_encoder", **ears, "num_mel_bins": 8, "max_source_positions": 1500},
        text_config={
            "model_type": "qwen2",
            **BLOCK,
            "num_key_value_heads": 4,
            "vocab_size": len(tokenizer),
            "initializer_range": 0.2,
        },
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )
    model = Qwen2AudioForConditionalGeneration(config).float().eval()
    return model, Qwen2AudioProcessor(WhisperFeatureExtractor(feature_size=8), tokenizer)


def tiny_smolvlm(tokenizer_of):
    model, processor = tiny_idefics3(tokenizer_of)
    torch.manual_seed(1)
    settings = model.config.to_dict()
    settings = {name: settings[name] for name in ("vision_config", "text_config", "image_token_id", "scale_factor")}
    config = SmolVLMConfig(**settings, pad_token_id=0)
    # Its own processor differs in that it also reads videos, for which it needs torchvision.
    return SmolVLMForConditionalGeneration(config).float().eval(), processor


MAKERS = {"llava": tiny_llava, "chameleon": tiny_chameleon, "idefics3": tiny_idefics3}
HEARING = {"qwen2_audio": tiny_qwen2_audio}
