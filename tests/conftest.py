"""Small models with random weights, one for each architecture of the registry, and the embedded model."""

import copy
import os

import pytest
import torch
import transformers
from hypothesis import HealthCheck, settings
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

import semhub_utils as sh
from semhub_utils import embedded

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# On a busy machine the threads of an operation this small wait for each other a hundred times longer than they work.
torch.set_num_threads(1)
# Nor does its speed decide whether a test passes.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

CORPUS = [
    "The quick brown fox jumps over the lazy dog. The dog and the cat see a bird in the water.",
    "El perro y el gato ven un pájaro en el agua. La película fue muy buena, la capital es París.",
    "Der Hund und die Katze sehen einen Vogel im Wasser. Die Hauptstadt ist schön.",
    "Собака и кошка видят птицу в воде.",
    "法国的首都是巴黎。昨天我去了北京。狗和猫在水里。日本の首都は東京です。",
    "words = ['a', 'b']\nfor w in words:\n    print(w)\n",
    "1 + 2 = 3, 10 + 20 = 30",
] * 3
SPECIAL = ["<pad>", "<unk>", "<s>", "</s>"]


def make_tokenizer(style, bos, pad, side):
    """A tokenizer trained here: byte-level as in GPT-2, or with Llama's metaspace and bytes to fall back on."""
    if style == "bytes":
        inner = Tokenizer(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        alphabet, special = pre_tokenizers.ByteLevel.alphabet(), SPECIAL
    else:
        inner = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
        inner.decoder = decoders.Sequence(
            [
                decoders.Replace("▁", " "),
                decoders.ByteFallback(),
                decoders.Fuse(),
                decoders.Strip(content=" ", left=1, right=0),
            ]
        )
        alphabet, special = [], [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(CORPUS, trainer)
    if bos:
        inner.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", inner.token_to_id("<s>"))]
        )
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, padding_side=side, **names, **({"pad_token": "<pad>"} if pad else {})
    )


SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
GROUPED = {**SIZES, "num_key_value_heads": 2}
GEMMA = {
    **GROUPED,
    "head_dim": 8,
    "query_pre_attn_scalar": 8,
    "sliding_window": 6,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
}
GPT = {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 256}
# Configuration class, model class, sizes, tokenizer: (style, BOS, pad token, padding side).
ARCHITECTURES = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", GROUPED, ("metaspace", True, False, "right")),
    "gemma3": (
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        {**GEMMA, "tie_word_embeddings": True},
        ("bytes", True, True, "left"),
    ),
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", GPT, ("bytes", False, False, "right")),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", {**GROUPED, "spare": 40}, ("bytes", False, True, "left")),
    "bloom": (
        "BloomConfig",
        "BloomForCausalLM",
        {"hidden_size": 32, "n_layer": 4, "n_head": 4},
        ("bytes", False, True, "left"),
    ),
}
# What else the head may do: cap, multiply or divide the logits, or add a bias.
UNUSUAL_HEADS = {
    "gemma2": (
        "Gemma2Config",
        "Gemma2ForCausalLM",
        {**GEMMA, "final_logit_softcapping": 2.0, "attn_logit_softcapping": 20.0},
        ("bytes", True, True, "left"),
    ),
    "cohere": ("CohereConfig", "CohereForCausalLM", {**GROUPED, "logit_scale": 0.25}, ("bytes", True, True, "left")),
    "granite": (
        "GraniteConfig",
        "GraniteForCausalLM",
        {**GROUPED, "logits_scaling": 3.0},
        ("bytes", False, True, "left"),
    ),
    "gptj": ("GPTJConfig", "GPTJForCausalLM", {**GPT, "rotary_dim": 4}, ("bytes", False, False, "right")),
    "phi": ("PhiConfig", "PhiForCausalLM", SIZES, ("bytes", False, True, "left")),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", {**GROUPED, "head_dim": 8}, ("bytes", False, True, "left")),
    "gpt_neox": ("GPTNeoXConfig", "GPTNeoXForCausalLM", SIZES, ("bytes", False, True, "right")),
}


def build(name):
    """A tiny model of a named architecture; every weight is random, norms and biases too, so that none is a no-op."""
    config_class, model_class, sizes, tokenizer_settings = (ARCHITECTURES | UNUSUAL_HEADS)[name]
    tokenizer = make_tokenizer(*tokenizer_settings)
    sizes = dict(sizes)
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": None, "pad_token_id": 0}
    config = getattr(transformers, config_class)(
        vocab_size=len(tokenizer) + sizes.pop("spare", 0), initializer_range=0.2, **special, **sizes
    )
    torch.manual_seed(0)
    model = getattr(transformers, model_class)(config).to(torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.3 * torch.randn_like(parameter)
    return sh.LanguageModel(model, tokenizer, sh.ModelSpec(f"tiny-{name}", "made in conftest"))


@pytest.fixture(scope="session")
def tokenizer_of():
    return make_tokenizer


@pytest.fixture(scope="session", params=ARCHITECTURES)
def lm(request):
    return build(request.param)


@pytest.fixture(scope="session", params=UNUSUAL_HEADS)
def unusual(request):
    return build(request.param)


@pytest.fixture(scope="session")
def llama():
    return build("llama")


@pytest.fixture(scope="session")
def gpt2():
    return build("gpt2")


@pytest.fixture
def llama_copy(llama):
    """A Llama of one's own, for a test that changes it."""
    return sh.LanguageModel(copy.deepcopy(llama.model), copy.deepcopy(llama.tokenizer), llama.spec)


@pytest.fixture(scope="session")
def embedded_folder():
    return embedded.path()


@pytest.fixture(scope="session")
def embedded_lm(embedded_folder):
    return sh.load()


@pytest.fixture
def untyped():
    """A function of ours without the signature check of the tests, as a reader calls it."""

    def unwrap(function):
        while hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        return function

    return unwrap


@pytest.fixture(scope="session")
def chromium():
    """The program of a browser; where there is none its tests are left out, but not where CI has to have one."""
    import print_book  # needs the build's packages, which the lower bounds do without

    try:
        return print_book.browser()
    except print_book.PrintError:
        if os.environ.get("SEMHUB_NEEDS_BROWSER"):
            raise
        pytest.skip("There is no Chromium here, so the tests in a browser were left out (apt install chromium)")


def pytest_terminal_summary(terminalreporter):
    """Say in one line why the tests in a browser were left out."""
    reasons = {report.longrepr[2] for report in terminalreporter.stats.get("skipped", [])}
    for reason in sorted(reason for reason in reasons if "Chromium" in reason):
        terminalreporter.write_line(reason.removeprefix("Skipped: "))
