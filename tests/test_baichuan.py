"""A small random checkpoint in Baichuan's own format, and what its architecture says of it, written out in float64."""

import io
import json
import sys

import pytest
import sentencepiece
import torch
import torch.nn.functional as F
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

import conftest
import memory
import semhub_utils as sh
from semhub_utils import baichuan

CONFIG = {
    "architectures": ["BaichuanForCausalLM"],
    "auto_map": {"AutoConfig": "configuration_baichuan.BaichuanConfig"},
    "model_type": "baichuan",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "hidden_act": "silu",
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "z_loss_weight": 0,
}
TEXTS = ["The dog and the cat see a bird in the water.", "法国的首都是巴黎", "1 + 2 = 3"]


@pytest.fixture(scope="module")
def pieces():
    """A SentencePiece model as Baichuan's: pairs of bytes, digits apart, nothing normalized."""
    return trained()


def weights(config, seed=0):
    """Random ones, the rows of the head of every length."""
    draw = torch.Generator().manual_seed(seed)
    d, inner, size = config["hidden_size"], config["intermediate_size"], config["vocab_size"]

    def some(*shape, scale=0.15):
        return scale * torch.randn(*shape, generator=draw)

    found = {"model.embed_tokens.weight": some(size, d, scale=1.0), "model.norm.weight": 1 + some(d, scale=0.3)}
    for k in range(config["num_hidden_layers"]):
        name = f"model.layers.{k}"
        found |= {
            f"{name}.self_attn.W_pack.weight": some(3 * d, d),
            f"{name}.self_attn.o_proj.weight": some(d, d),
            f"{name}.mlp.gate_proj.weight": some(inner, d),
            f"{name}.mlp.up_proj.weight": some(inner, d),
            f"{name}.mlp.down_proj.weight": some(d, inner),
            f"{name}.input_layernorm.weight": 1 + some(d, scale=0.3),
            f"{name}.post_attention_layernorm.weight": 1 + some(d, scale=0.3),
            f"{name}.self_attn.rotary_emb.inv_freq": torch.ones(d // 8),
        }
    lengths = torch.rand(size, 1, generator=draw) * 5 + 0.1
    return found | {"lm_head.weight": some(size, d, scale=1.0) * lengths}


def checkpoint(folder, pieces, form="bin", **changed):
    """The files as the hub has them: in two parts with an index, or as one."""
    folder.mkdir(parents=True, exist_ok=True)
    processor = sentencepiece.SentencePieceProcessor(model_proto=pieces)
    config = CONFIG | {"vocab_size": processor.vocab_size()} | changed
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.model").write_bytes(pieces)
    (folder / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": False, "use_fast": False}))
    tensors = weights(config)
    if form == "safetensors":
        from safetensors.torch import save_file

        save_file(tensors, folder / "model.safetensors")
        return config, tensors
    names = list(tensors)
    where = {}
    for part, some in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), 1):
        file = f"pytorch_model-{part:05}-of-00002.bin"
        torch.save({name: tensors[name] for name in some}, folder / file)
        where |= dict.fromkeys(some, file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return config, tensors


def norm(x, weight, eps):
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight


def turned(x):
    """Rotary positions: the first half of a head against its second, at 10000^(-2i/d) turns a place."""
    places, width = x.shape[1], x.shape[2]
    rates = 10_000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.arange(places, dtype=torch.float64)[:, None] * rates
    one, other = x[..., : width // 2], x[..., width // 2 :]
    return torch.cat([one * angles.cos() - other * angles.sin(), other * angles.cos() + one * angles.sin()], -1)


def stated(config, tensors, ids, unit=True):
    """The architecture in float64: the state after each block, and the logits, (tokens, vocabulary)."""
    w = {name: tensor.double() for name, tensor in tensors.items()}
    heads, eps = config["num_attention_heads"], config["rms_norm_eps"]
    x = w["model.embed_tokens.weight"][ids]
    states = [x]
    for k in range(config["num_hidden_layers"]):
        name = f"model.layers.{k}"
        packed = norm(x, w[f"{name}.input_layernorm.weight"], eps) @ w[f"{name}.self_attn.W_pack.weight"].T
        q, key, v = (part.unflatten(-1, (heads, -1)).transpose(0, 1) for part in packed.split(x.shape[1], -1))
        scores = turned(q) @ turned(key).transpose(1, 2) / (x.shape[1] / heads) ** 0.5
        later = torch.ones(len(ids), len(ids)).triu(1).bool()
        mixed = scores.masked_fill(later, -torch.inf).softmax(-1) @ v
        x = x + mixed.transpose(0, 1).flatten(1) @ w[f"{name}.self_attn.o_proj.weight"].T
        read = norm(x, w[f"{name}.post_attention_layernorm.weight"], eps)
        gate = F.silu(read @ w[f"{name}.mlp.gate_proj.weight"].T) * (read @ w[f"{name}.mlp.up_proj.weight"].T)
        x = x + gate @ w[f"{name}.mlp.down_proj.weight"].T
        states.append(x)
    head = w["lm_head.weight"]
    head = head / head.pow(2).sum(-1, keepdim=True).sqrt() if unit else head
    return states, norm(x, w["model.norm.weight"], eps) @ head.T


@pytest.fixture(scope="module", params=["bin", "safetensors"])
def made(request, pieces, tmp_path_factory):
    folder = tmp_path_factory.mktemp("baichuan") / request.param
    config, tensors = checkpoint(folder, pieces, request.param)
    return sh.load(str(folder), device="cpu"), config, tensors, folder


def test_it_is_a_llama_that_computes_what_the_architecture_says(made):
    lm, config, tensors, folder = made
    assert type(lm.model) is transformers.LlamaForCausalLM
    assert (lm.spec.source, lm.spec.revision) == (str(folder), "local")
    for text in TEXTS:
        ids = lm.token_ids(text)[0]
        states, logits = stated(config, tensors, ids)
        with sh.record(lm) as recorded:
            own = lm(text).logits[0].double()
        for layer, state in enumerate(states):
            torch.testing.assert_close(recorded[layer][0].double(), state, atol=1e-5 * float(state.abs().max()), rtol=0)
        scale = float(logits.abs().max())
        assert float((own - logits).abs().max()) < 1e-5 * scale
        plain = stated(config, tensors, ids, unit=False)[1]
        assert float((plain - logits).abs().max()) > scale, "the trap of this test is not set"
        frame = sh.logit_lens(lm, text, {"a": 5, "b": 300})
        last = frame[frame.layer == lm.n_layers].logprob.to_numpy()
        assert abs(last - logits[-1].log_softmax(-1)[[5, 300]].numpy()).max() < 1e-4 * scale


def test_its_continuations_are_those_of_the_statement(made):
    lm, config, tensors, _ = made
    ids = lm.token_ids(TEXTS[0])[0]
    start = len(ids)
    for _ in range(6):
        ids.append(int(stated(config, tensors, ids)[1][-1].argmax()))
    assert lm.generate(TEXTS[0], max_new_tokens=6) == lm.tokenizer.decode(ids[start:], skip_special_tokens=True)


def test_none_of_the_checkpoints_code_is_run(pieces, tmp_path):
    config, _ = checkpoint(tmp_path, pieces)
    (tmp_path / "configuration_baichuan.py").write_text("raise SystemExit('it was run')")
    assert sh.load(str(tmp_path), device="cpu").model.config.vocab_size == config["vocab_size"]


def trained(prefix=False, squeeze=False):
    """A SentencePiece model of its own."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(conftest.CORPUS),
        model_writer=model,
        vocab_size=420,
        model_type="bpe",
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=squeeze,
        add_dummy_prefix=prefix,
        minloglevel=2,
    )
    return model.getvalue()


@pytest.mark.parametrize("prefix", [False, True])
def test_its_tokens_are_those_of_sentencepiece(prefix, tmp_path):
    model = trained(prefix)
    (tmp_path / "tokenizer.model").write_bytes(model)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    fast = baichuan.tokenizer(tmp_path)
    some = [*"abcdeTh \n1234", "the", "dog", " ", "  ", "法", "国", "的", "é", "ß", "🐶", "ж", "▁", "<", ">"]

    @settings(deadline=None, max_examples=300)
    @given(st.lists(st.sampled_from(some), max_size=12).map("".join))
    def same(text):
        assert fast(text).input_ids == processor.encode(text), repr(text)
        assert fast.decode(fast(text).input_ids) == processor.decode(processor.encode(text))

    same()
    for text in (*TEXTS, "", " ", "  a", "a  ", "a\n\n b"):
        assert fast(text).input_ids == processor.encode(text), repr(text)


def test_a_tokenizer_that_takes_spaces_out_is_refused(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(trained(squeeze=True))
    with pytest.raises(ValueError, match="its tokenizer takes spaces out, as no Baichuan's does"):
        baichuan.tokenizer(tmp_path)


def test_a_token_for_the_beginning_is_put_in_only_if_the_files_say_so(pieces, tmp_path):
    checkpoint(tmp_path, pieces)
    assert sh.load(str(tmp_path), device="cpu").token_ids("dog")[0][0] != 1
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": True}))
    assert sh.load(str(tmp_path), device="cpu").token_ids("dog")[0][0] == 1


def test_the_first_baichuan_has_a_plain_head(pieces, tmp_path):
    config, tensors = checkpoint(tmp_path, pieces)
    config.pop("z_loss_weight")
    (tmp_path / "config.json").write_text(json.dumps(config))
    lm = sh.load(str(tmp_path), device="cpu")
    ids = lm.token_ids(TEXTS[0])[0]
    plain = stated(config, tensors, ids, unit=False)[1]
    torch.testing.assert_close(lm(TEXTS[0]).logits[0].double(), plain, atol=1e-5 * float(plain.abs().max()), rtol=0)
    assert baichuan.has_unit_rows(CONFIG | {"vocab_size": 125_696})
    assert not baichuan.has_unit_rows({"vocab_size": 64_000})


def test_what_cannot_be_mapped_is_named(pieces, tmp_path):
    config, _ = checkpoint(tmp_path / "alibi", pieces)
    config["model_max_length"] = config.pop("max_position_embeddings")
    (tmp_path / "alibi" / "config.json").write_text(json.dumps(config))
    with pytest.raises(OSError, match="tells positions apart by ALiBi, as the Baichuan of 13B does"):
        sh.load(str(tmp_path / "alibi"), device="cpu")
    checkpoint(tmp_path / "part", pieces)
    (tmp_path / "part" / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(OSError, match=r"lacks pytorch_model-00002-of-00002\.bin, which its index names"):
        sh.load(str(tmp_path / "part"), device="cpu")
    _, tensors = checkpoint(tmp_path / "other", pieces)
    for change, said in (
        ({"model.extra": torch.ones(2)}, "the tensor model.extra belongs to no Llama"),
        ({"model.norm.weight": torch.ones(3)}, r"the tensor model.norm.weight is \(3,\) and not \(48,\)"),
        ({"model.norm.weight": None}, "1 tensors are missing, the first model.norm.weight"),
    ):
        changed = {name: one for name, one in (tensors | change).items() if one is not None}
        (tmp_path / "other" / "pytorch_model.bin.index.json").unlink(missing_ok=True)
        torch.save(changed, tmp_path / "other" / "pytorch_model.bin")
        with pytest.raises(OSError, match=said):
            sh.load(str(tmp_path / "other"), device="cpu")
    (tmp_path / "other" / "pytorch_model.bin").unlink()
    for left in (tmp_path / "other").glob("*.bin"):
        left.unlink()
    with pytest.raises(OSError, match="has no weights"):
        sh.load(str(tmp_path / "other"), device="cpu")


def test_another_model_is_left_as_it_is(llama, tmp_path):
    llama.model.save_pretrained(tmp_path)
    assert baichuan.native(str(tmp_path), "main") == str(tmp_path)


MAPS = """
baichuan._SHARD = 50 * 2**20  # an older safetensors holds what it writes twice
baichuan.native(sys.argv[1], "main")
print("MB", most[0] - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_mapping_holds_no_file_in_memory(pieces, tmp_path):
    sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 5, "num_attention_heads": 8}
    _, tensors = checkpoint(tmp_path, pieces, **sizes)
    for file in tmp_path.glob("*.bin*"):
        file.unlink()
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    megabytes = (tmp_path / "pytorch_model.bin").stat().st_size / 2**20
    assert megabytes > 300
    imports = "from semhub_utils import baichuan"
    (more,) = memory.watched(imports, MAPS, str(tmp_path), seconds=120, SEMHUB_CACHE=str(tmp_path / "cache"))
    assert more < 150
