import copy

import accelerate
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import normalizers
from torch import distributed, nn
from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh

import semhub_utils as sh
from semhub_utils import hooks

TEXTS = ["The dog and the cat see a bird in the water.", "法国的首都是", "El perro", "Собака и кошка видят птицу"]
WORDS = ["dog", "the cat", "法国的首都", "Собака", "word", "1 + 2", "в воде", "for w in words"]


def test_the_parts_have_one_name_in_every_architecture(lm):
    assert lm.n_layers == 4 == len(lm.blocks)
    assert lm.d_model == 32
    assert lm.device == torch.device("cpu")
    assert lm.head is lm.model.get_output_embeddings()
    assert repr(lm) == f"{lm.spec.name}: 4 blocks, d_model 32, on cpu"
    assert not lm.model.training


def test_the_parts_put_together_are_the_model(lm):
    state = sh.hidden_states(lm, TEXTS)[:, -1]
    with torch.no_grad():
        logits = lm.scale_logits(lm.head(lm.final_norm(state)))
    for i, text in enumerate(TEXTS):
        assert torch.allclose(logits[i], lm(text).logits[0, -1], atol=1e-4)


def test_scale_logits_is_what_the_architecture_does(unusual):
    logits = torch.linspace(-5, 5, 11)
    expected = {
        "gemma2": 2 * torch.tanh(logits / 2),
        "cohere": logits * 0.25,
        "granite": logits / 3,
    }.get(unusual.model.config.model_type, logits)
    assert torch.allclose(unusual.scale_logits(logits), expected)


def test_a_model_with_unknown_parts_says_where_they_are_named(llama_copy):
    del llama_copy.model.model.norm
    with pytest.raises(AttributeError, match=r"LlamaModel has no final norm under any of the names norm, ln_f"):
        _ = llama_copy.final_norm


@settings(deadline=None, max_examples=25)
@given(
    texts=st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join), min_size=1, max_size=6),
    side=st.sampled_from(["left", "right"]),
)
def test_padding_leaves_the_tokens_whole_and_positions_start_at_the_first_real_one(lm, texts, side):
    tokens = lm.token_ids(texts)
    inputs = lm.pad(tokens, side=side)
    assert ("position_ids" in inputs) == (lm.model.config.model_type != "bloom")
    width = max(map(len, tokens))
    for i, ids in enumerate(tokens):
        real = slice(width - len(ids), width) if side == "left" else slice(0, len(ids))
        assert inputs["input_ids"][i, real].tolist() == ids
        assert inputs["attention_mask"][i, real].all()
        assert int(inputs["attention_mask"][i].sum()) == len(ids)
        if "position_ids" in inputs:
            assert inputs["position_ids"][i, real].tolist() == list(range(len(ids)))


def test_encode_pads_to_the_side_of_the_tokenizer(lm, monkeypatch):
    for side, end in (("left", -1), ("right", 0)):
        monkeypatch.setattr(lm.tokenizer, "padding_side", side)
        assert lm.encode(TEXTS)["attention_mask"][:, end].all()


def test_token_ids_have_the_special_tokens_of_the_tokenizer(lm):
    has_bos = lm.spec.name in ("tiny-llama", "tiny-gemma3")
    for ids, text in zip(lm.token_ids(TEXTS), TEXTS, strict=True):
        assert (ids[0] == lm.tokenizer.bos_token_id) == has_bos
        assert ids == lm.tokenizer(text).input_ids


def test_a_tokenizer_without_a_pad_token_gets_one_that_no_result_depends_on(tokenizer_of, gpt2):
    tokenizer = tokenizer_of("bytes", False, False, "left")
    assert tokenizer.pad_token_id is None
    lm = sh.LanguageModel(gpt2.model, tokenizer, gpt2.spec)
    first = lm(TEXTS).logits
    tokenizer.pad_token = "<unk>"
    second = lm(TEXTS).logits
    mask = lm.encode(TEXTS)["attention_mask"].bool()
    assert torch.equal(first[mask], second[mask])


def test_a_batch_gives_each_text_the_logits_that_it_gets_alone(lm, monkeypatch):
    alone = [lm(text).logits[0] for text in TEXTS]
    for side in ("left", "right"):
        monkeypatch.setattr(lm.tokenizer, "padding_side", side)
        batch, mask = lm(TEXTS).logits, lm.encode(TEXTS)["attention_mask"].bool()
        for i, one in enumerate(alone):
            assert torch.allclose(batch[i][mask[i]], one, atol=1e-4 * float(one.abs().max())), (side, i)


def test_a_batch_of_the_embedded_model_gives_each_text_the_logits_that_it_gets_alone(embedded_lm):
    texts = ["The capital of France is", "猫"]
    batch = embedded_lm(texts, logits_to_keep=1).logits
    for i, text in enumerate(texts):
        alone = embedded_lm(text, logits_to_keep=1).logits[0]
        assert torch.allclose(batch[i], alone, atol=1e-4 * float(alone.abs().max()))


def test_logits_to_keep_are_the_last_ones(lm):
    everything = lm(TEXTS[:1]).logits
    assert everything.shape[1] == len(lm.token_ids(TEXTS[0])[0])
    for keep in (1, 3):
        kept = lm(TEXTS[:1], logits_to_keep=keep).logits
        assert kept.shape[1] == keep
        assert torch.allclose(kept, everything[:, -keep:], atol=1e-5)


def test_run_computes_the_blocks_and_no_logits(lm):
    heads = []
    handle = lm.head.register_forward_hook(lambda *_: heads.append(1))
    try:
        with sh.record(lm, [4]) as states:
            lm.run(lm.encode(TEXTS))
        assert heads == []
        with sh.record(lm, [4]) as expected:
            lm(TEXTS)
        assert heads == [1]
    finally:
        handle.remove()
    assert torch.equal(states[4], expected[4])


def test_no_call_keeps_a_graph(lm):
    assert not lm(TEXTS).logits.requires_grad
    assert not sh.hidden_states(lm, TEXTS).requires_grad


def test_token_text_keeps_spaces(embedded_lm):
    ids = embedded_lm.tokenizer(" dog 's . \n\n  x", add_special_tokens=False).input_ids
    assert "".join(embedded_lm.token_text(ids)) == " dog 's . \n\n  x"
    assert embedded_lm.token_text(torch.tensor(ids)) == embedded_lm.token_text(ids)


def test_greedy_continuations_of_a_batch_are_those_of_each_text_alone(lm):
    texts = [*TEXTS, "in the water", "1 + 2 ="]
    batch = lm.generate(texts, max_new_tokens=8)
    assert batch == [lm.generate(text, max_new_tokens=8) for text in texts]
    assert len(set(batch)) > 1


def test_greedy_continuations_are_those_of_a_loop_without_a_cache(lm):
    for text in TEXTS:
        ids = lm.token_ids(text)[0]
        new = []
        for _ in range(6):
            with torch.no_grad():
                new.append(int(lm.model(input_ids=torch.tensor([ids + new]), use_cache=False).logits[0, -1].argmax()))
        assert lm.generate(text, max_new_tokens=6) == lm.tokenizer.decode(new, skip_special_tokens=True)


def test_greedy_continuations_of_the_embedded_model_agree_in_a_batch(embedded_lm):
    texts = ["The capital of France is", "猫", "1, 2, 3, 4,"]
    batch = embedded_lm.generate(texts, max_new_tokens=5)
    assert batch == [embedded_lm.generate(text, max_new_tokens=5) for text in texts]
    assert batch[2].startswith(" 5")


def test_a_str_gives_a_str_and_a_list_a_list(lm):
    one = lm.generate("The dog", max_new_tokens=3)
    assert isinstance(one, str)
    assert lm.generate(["The dog"], max_new_tokens=3) == [one]


def test_the_prompt_is_no_part_of_what_is_returned(embedded_lm):
    assert embedded_lm.generate("1, 2, 3, 4,", max_new_tokens=2) == " 5"


def test_max_new_tokens_is_a_limit(lm):
    for n in (1, 4):
        with sh.record(lm, [1]) as states:
            lm.generate("The dog", max_new_tokens=n)
        assert states[1].shape[1] == len(lm.token_ids("The dog")[0]) + n - 1


def test_sampling_repeats_with_its_seed_and_differs_with_another(lm):
    def sample(seed):
        return lm.generate(TEXTS, max_new_tokens=8, temperature=1.5, seed=seed)

    assert sample(0) == sample(0)
    assert sample(0) != sample(1)
    assert sample(0) != lm.generate(TEXTS, max_new_tokens=8)


def test_sampling_leaves_the_state_of_random_numbers_alone(lm):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    lm.generate("The dog", max_new_tokens=3, temperature=1.0, seed=9)
    lm.generate("The dog", max_new_tokens=3)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    assert torch.equal(torch.rand(3), expected)


def test_sampling_from_nearly_nothing_is_greedy(lm):
    greedy = lm.generate(TEXTS, max_new_tokens=6)
    assert lm.generate(TEXTS, max_new_tokens=6, temperature=1e-4) == greedy
    assert lm.generate(TEXTS, max_new_tokens=6, temperature=2.0, top_p=1e-6) == greedy


def test_sampling_follows_the_models_probabilities(gpt2):
    exact = (gpt2("The dog").logits[0, -1].double() / 0.8).softmax(-1)
    names = gpt2.token_text(range(len(exact)))
    draws = []
    for seed in range(8):
        draws += gpt2.generate(["The dog"] * 250, max_new_tokens=1, temperature=0.8, seed=seed)
    for token in exact.topk(3).indices.tolist():
        p = float(sum(q for q, name in zip(exact, names, strict=True) if name == names[token]))
        assert abs(draws.count(names[token]) / len(draws) - p) < 5 * (p * (1 - p) / len(draws)) ** 0.5


def test_max_new_tokens_below_1_is_named(lm):
    for n in (0, -5):
        with pytest.raises(ValueError, match=f"max_new_tokens is {n}: give 1 or more"):
            lm.generate("dog", max_new_tokens=n)


def test_an_empty_text_is_named_by_its_place(lm):
    for call in (lm, lm.encode, lm.generate, lm.token_ids):
        with pytest.raises(ValueError, match="text 1 is empty: every text needs at least one character"):
            call(["dog", ""])
        with pytest.raises(ValueError, match="the list of texts is empty: give at least one text"):
            call([])


def test_a_text_that_is_no_str_is_named_by_its_place(llama, untyped):
    for wrong in (3, None, b"dog", ["dog"]):
        with pytest.raises(TypeError, match=r"text 1 is .* every text is a str") as error:
            untyped(sh.LanguageModel.token_ids)(llama, ["dog", wrong])
        assert repr(wrong) in str(error.value)


def test_a_text_without_a_token_is_named(gpt2, monkeypatch):
    tokenizer = copy.deepcopy(gpt2.tokenizer)
    tokenizer.backend_tokenizer.normalizer = normalizers.Strip()
    lm = sh.LanguageModel(gpt2.model, tokenizer, gpt2.spec)
    with pytest.raises(ValueError, match=r"text 1, '  ', has no token in tiny-gpt2: drop it or change it"):
        lm.encode(["dog", "  "])


def offloaded(lm, kind, tmp_path):
    model = copy.deepcopy(lm.model)
    if kind == "disk":
        model = accelerate.disk_offload(model, tmp_path, execution_device=torch.device("cpu"))
    else:
        model = accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    return sh.LanguageModel(model, lm.tokenizer, lm.spec)


@pytest.mark.parametrize("kind", ["disk", "cpu"])
def test_an_offloaded_unembedding_is_brought_in_and_let_go(lm, kind, tmp_path):
    away = offloaded(lm, kind, tmp_path)
    assert away.head.weight.device.type == "meta", "the trap of this test is not set"
    assert away.head_device == torch.device("cpu")
    with away.unembedding() as (weight, bias):
        assert torch.equal(weight, lm.head.weight)
        assert bias is None
    assert away.head.weight.device.type == "meta"


@pytest.mark.parametrize("kind", ["disk", "cpu"])
def test_a_lens_on_an_offloaded_model_is_the_lens_on_the_model(lm, kind, tmp_path):
    away = offloaded(lm, kind, tmp_path)
    targets = {"a": 5, "b": 300}
    frame = sh.logit_lens(away, TEXTS, targets)
    pd.testing.assert_frame_equal(frame, sh.logit_lens(lm, TEXTS, targets), rtol=1e-5, atol=1e-5)
    top = sh.top_tokens(away, "The dog", 3)
    pd.testing.assert_frame_equal(top, sh.top_tokens(lm, "The dog", 3), rtol=1e-5, atol=1e-6)
    own = away("The dog").logits[0, -1].softmax(-1).topk(3).values
    assert np.allclose(top[top.layer == away.n_layers].prob, own, atol=1e-5)
    assert torch.allclose(sh.hidden_states(away, TEXTS), sh.hidden_states(lm, TEXTS), atol=1e-5)


def test_an_offloaded_head_of_another_kind_is_brought_in(unusual, tmp_path):
    away = offloaded(unusual, "disk", tmp_path)
    frame = sh.logit_lens(away, "The dog", {"a": 5, "b": 300})
    pd.testing.assert_frame_equal(frame, sh.logit_lens(unusual, "The dog", {"a": 5, "b": 300}), rtol=1e-5, atol=1e-5)


def test_an_edit_works_on_an_offloaded_model(llama, tmp_path):
    away = offloaded(llama, "disk", tmp_path)
    for lm in (llama, away):
        with sh.edit(lm, 2, lambda state: state + 1, "last"), sh.record(lm) as states:
            lm(TEXTS)
        if lm is llama:
            expected = states
    for k, state in states.items():
        assert torch.allclose(state, expected[k], atol=1e-5)


def test_a_sharded_unembedding_is_gathered(llama_copy):
    lm = llama_copy
    expected = sh.logit_lens(lm, TEXTS, {"a": 5, "b": 300})
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        whole = lm.head.weight.detach().clone()
        lm.head.weight = nn.Parameter(distribute_tensor(whole, mesh, [Shard(0)]))
        with lm.unembedding() as (weight, _):
            assert type(weight) in (torch.Tensor, nn.Parameter)
            assert torch.equal(weight, whole)
        pd.testing.assert_frame_equal(sh.logit_lens(lm, TEXTS, {"a": 5, "b": 300}), expected)
    finally:
        distributed.destroy_process_group()


def test_check_layer_takes_the_embedding_to_the_last_block(lm):
    assert [lm.check_layer(k) for k in range(5)] == [0, 1, 2, 3, 4]
    for wrong in (-1, 5, True):
        with pytest.raises(ValueError, match=rf"layer {wrong} is out of range: {lm.spec.name} has 4 blocks"):
            lm.check_layer(wrong)


def spread(lm, folder):
    """The model as transformers loads it with its first blocks on the CPU and the others in turn on the disk."""
    lm.model.save_pretrained(folder)
    inside = next(name for name, module in lm.model.named_modules() if module is lm.blocks)
    places = {f"{inside}.{number}": "disk" if number % 2 else "cpu" for number in range(lm.n_layers)}
    around = inside.rpartition(".")[0]
    places |= {f"{around}.{name}": "cpu" for name, _ in lm.decoder.named_children() if f"{around}.{name}" != inside}
    tied = lm.head.weight is lm.model.get_input_embeddings().weight
    head = next(name for name, module in lm.model.named_modules() if module is lm.head)
    places[head] = "cpu" if tied else "disk"
    how = {"device_map": places, "offload_folder": folder / "offload", "dtype": torch.float32}
    made = sh.LanguageModel(type(lm.model).from_pretrained(folder, **how), lm.tokenizer, lm.spec)
    away = [next(block.parameters()).device.type == "meta" for block in made.blocks]
    assert away == [False, True, False, True], "the trap of this test is not set"
    return made


def test_a_model_with_blocks_on_the_disk_gives_what_the_whole_model_gives(lm, tmp_path):
    away = spread(lm, tmp_path)
    vectors = {str(k): sh.steering_vector(lm, ["the dog", "a day"], ["the cat", "a bird"], k) for k in (0, 2, 3)}
    for k, vector in vectors.items():
        own = sh.steering_vector(away, ["the dog", "a day"], ["the cat", "a bird"], int(k))
        assert torch.allclose(own.direction, vector.direction, atol=1e-5)
    found = []
    for one in (lm, away):
        with sh.edit(one, 2, lambda state: state * 1.5, "last"), sh.record(one) as states:
            logits = one(TEXTS).logits
        with sh.steer(one, vectors["3"], 0.5):
            texts = one.generate(TEXTS, max_new_tokens=4)
        found.append((states, logits, texts))
    for k, state in found[0][0].items():
        assert torch.allclose(found[1][0][k], state, atol=1e-5), k
    assert torch.allclose(found[1][1], found[0][1], atol=1e-5)
    assert found[1][2] == found[0][2]
    unembedding = [sh.steering_vector(one, ["dog"], ["gato"], 2, "unembedding").direction for one in (lm, away)]
    assert torch.equal(*unembedding)
    for norm in ("final", "none"):
        frames = [sh.logit_lens(one, TEXTS, {"a": 5, "b": 300}, "all", norm) for one in (lm, away)]
        pd.testing.assert_frame_equal(frames[1], frames[0], rtol=1e-5, atol=1e-5)
    # The log-odds begin at each vector's layer (`hooks.resumed`), on the disk or off it.
    how = dict(words=(["dog", "bird"], ["gato", "Hund"]), max_new_tokens=0, batch_size=3)
    frames = [sh.sweep(one, vectors, TEXTS, [-0.5, 0.0, 0.5], **how) for one in (lm, away)]
    pd.testing.assert_frame_equal(frames[1], frames[0], rtol=1e-5, atol=1e-4)
    assert [next(block.parameters()).device.type == "meta" for block in away.blocks] == [False, True, False, True]


def test_a_state_is_taken_up_above_blocks_on_the_disk_which_then_rest(lm, tmp_path):
    away = spread(lm, tmp_path)
    inputs = lm.encode(TEXTS)
    with sh.record(lm) as states:
        lm.run(inputs)
    for layer in range(1, 5):
        ran: list[int] = []

        def runs(*_, ran=ran):
            ran.append(1)

        below = [part.register_forward_hook(runs) for part in away.blocks[1].children()]
        with hooks.resumed(away, layer, states[layer] + 0.1), sh.record(away) as resumed:
            away.run(inputs)
        with sh.edit(lm, layer, lambda state: state + 0.1), sh.record(lm) as edited:
            lm.run(inputs)
        for handle in below:
            handle.remove()
        assert bool(ran) == (layer == 1)
        real = inputs["attention_mask"].bool()
        for k in range(layer, 5):
            assert torch.allclose(resumed[k][real], edited[k][real], atol=1e-5), (layer, k)
    assert torch.allclose(away(TEXTS).logits, lm(TEXTS).logits, atol=1e-5), "a block did not get its own back"
