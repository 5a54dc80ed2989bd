import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import semhub_utils as sh

TEXTS = ["The dog and the cat see a bird in the water.", "法国的首都是", "dog", "El perro y el gato"]
PROMPTS = ["The dog and the cat see", "法国的首都是巴黎。昨天我去了北京。", "dog"]
SIDES = ["left", "right"]
WORDS = ["dog", "the cat", "法国的首都", "Собака", "word", "1 + 2", "в воде", "for w in words"]


def vector(lm, size=20.0):
    v = torch.randn(lm.d_model, generator=torch.Generator().manual_seed(1))
    return size * v / v.norm()


def add(v):
    return lambda state: state + v


def count_hooks(lm):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in lm.model.modules())


def forward(lm, texts, side="left"):
    with torch.no_grad():
        return lm.model(**lm.pad(lm.token_ids(texts), side=side), use_cache=False).logits


def run(lm, texts, side="left", **kwargs):
    """States recorded by the package while the inputs run, as one tensor (rows, texts, tokens, d_model)."""
    with sh.record(lm, **kwargs) as states:
        forward(lm, texts, side)
    return torch.stack([states[k] for k in sorted(states)])


def plain_hook(lm, layer, change):
    """Change a layer with torch's own hooks and nothing of the package."""
    if layer == 0:

        def before(_, args, kwargs):
            return ((change(args[0]), *args[1:]), kwargs) if args else (args, change_in(kwargs))

        def change_in(kwargs):
            return {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

        return lm.blocks[0].register_forward_pre_hook(before, with_kwargs=True)

    def after(_, args, output):
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    return lm.blocks[layer - 1].register_forward_hook(after)


def plain_states(lm, texts, layer=None, change=None, side="left"):
    """What `run` should give, by torch's own hooks: first the change, then a note of every row."""
    states = {}

    def note(k):
        def keep(state):
            states[k] = state.clone()
            return state

        return keep

    handles = [] if layer is None else [plain_hook(lm, layer, change)]
    try:
        handles += [plain_hook(lm, k, note(k)) for k in range(lm.n_layers + 1)]
        forward(lm, texts, side)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack([states[k] for k in sorted(states)])


def chosen(positions, lengths, side):
    """Which columns of the padded batch the positions mean, by counting."""
    width = max(lengths)
    mask = torch.zeros(len(lengths), width, dtype=torch.bool)
    for text, length in enumerate(lengths):
        if positions in (None, "all", "prompt"):
            numbers = range(length)
        elif positions == "last":
            numbers = [length - 1]
        else:
            numbers = [positions] if isinstance(positions, int) else positions
            numbers = [n + length if n < 0 else n for n in numbers]
        for n in numbers:
            if n < length:
                mask[text, n + (width - length if side == "left" else 0)] = True
    return mask


def test_recorded_states_are_transformers_own_hidden_states(lm):
    with torch.no_grad():
        expected = lm.model(**lm.encode(TEXTS), output_hidden_states=True, use_cache=False).hidden_states
    with sh.record(lm) as states:
        lm(TEXTS)
    assert sorted(states) == list(range(lm.n_layers + 1))
    for k in range(lm.n_layers):
        assert torch.equal(states[k], expected[k]), k
    # transformers norms its last row; ours is the output of the block.
    assert not torch.allclose(states[lm.n_layers], expected[-1], atol=1e-2)
    with torch.no_grad():
        assert torch.equal(lm.final_norm(states[lm.n_layers]), expected[-1])


def test_record_holds_the_asked_layers_only(lm):
    everything = run(lm, TEXTS)
    for layers in ([0, 3], [lm.n_layers], [2, 1]):
        with sh.record(lm, layers=layers) as states:
            forward(lm, TEXTS)
        assert sorted(states) == sorted(layers)
        for k in layers:
            assert torch.equal(states[k], everything[k])
    with sh.record(lm, layers=2) as states:
        forward(lm, TEXTS)
    assert list(states) == [2]
    assert torch.equal(states[2], everything[2])


def test_record_holds_the_last_batch_of_prompts(lm):
    with sh.record(lm) as states:
        lm(TEXTS)
        lm(["dog", "cat and dog"])
    assert torch.equal(torch.stack([states[k] for k in sorted(states)]), run_own_side(lm, ["dog", "cat and dog"]))


def run_own_side(lm, texts):
    return run(lm, texts, side=lm.tokenizer.padding_side)


def test_recorded_states_after_an_edit_are_those_of_a_plain_hook(lm):
    v = vector(lm)
    base = run(lm, TEXTS)
    for layer in range(lm.n_layers + 1):
        expected = plain_states(lm, TEXTS, layer, add(v))
        with sh.edit(lm, layer, lambda state: state + v):
            got = run(lm, TEXTS)
        mask = lm.pad(lm.token_ids(TEXTS), side="left")["attention_mask"].bool()
        # Padding is left alone by ours and changed by the plain hook; no real token looks at it.
        assert torch.allclose(got[:, mask], expected[:, mask], atol=1e-4), layer
        assert torch.equal(got[:layer], base[:layer])
        assert torch.equal(got[layer][~mask], base[layer][~mask])
        single = ["The dog and the cat"]
        expected = plain_states(lm, single, layer, add(v))
        with sh.edit(lm, layer, lambda state: state + v):
            assert torch.equal(run(lm, single), expected)


@pytest.mark.parametrize("layer", [0, 2, 4])
def test_an_edit_is_recorded_at_its_own_layer_whichever_was_entered_first(lm, layer):
    v = vector(lm)
    expected = plain_states(lm, ["The dog and"], layer, add(v))
    with sh.record(lm) as states, sh.edit(lm, layer, add(v)):
        forward(lm, ["The dog and"])
    assert torch.equal(torch.stack([states[k] for k in sorted(states)]), expected)
    with sh.edit(lm, layer, add(v)), sh.record(lm) as states:
        forward(lm, ["The dog and"])
    assert torch.equal(torch.stack([states[k] for k in sorted(states)]), expected)


def test_an_edit_is_recorded_after_transformers_has_installed_its_own_hooks(llama_copy):
    lm, v = llama_copy, vector(llama_copy)
    base = run(lm, ["dog"])
    with torch.no_grad():
        lm.model(**lm.encode("dog"), output_hidden_states=True)
    with sh.edit(lm, 2, add(v)):
        assert torch.equal(run(lm, ["dog"])[2], base[2] + v)


def test_adding_zero_leaves_the_logits_as_they_were_to_the_bit(lm):
    for side in SIDES:
        expected = forward(lm, TEXTS, side)
        for layer in range(lm.n_layers + 1):
            for positions in (None, "all", "prompt", "last", 0, -1, [0, -1]):
                with sh.edit(lm, layer, lambda state: state + 0, positions):
                    assert torch.equal(forward(lm, TEXTS, side), expected), (side, layer, positions)


def test_adding_zero_leaves_the_logits_of_the_embedded_model_as_they_were_to_the_bit(embedded_lm):
    expected = embedded_lm(["法国的首都是"], logits_to_keep=2).logits
    for layer in (0, 9, 18):
        with sh.edit(embedded_lm, layer, lambda state: state + 0):
            assert torch.equal(embedded_lm(["法国的首都是"], logits_to_keep=2).logits, expected)


def test_an_edit_on_the_embedded_model_changes_what_it_says(embedded_lm):
    lm = embedded_lm
    v = 3 * sh.hidden_states(lm, "The best film")[0, 12]
    with sh.edit(lm, 12, add(v)), sh.record(lm, layers=[11, 12]) as states:
        pushed = lm(["dog"]).logits
    with sh.record(lm, layers=[11, 12]) as before:
        logits = lm(["dog"]).logits
    assert torch.equal(states[11], before[11])
    assert torch.equal(states[12], before[12] + v)
    assert (pushed - logits).abs().max() > 1


POSITIONS = [None, "all", "prompt", "last", 0, -1, [0], [0, -1]]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("positions", [*POSITIONS, 2, [1, 2, 5]], ids=str)
def test_an_edit_touches_its_layer_and_positions_and_nothing_else(lm, positions, side):
    v = vector(lm)
    lengths = [len(ids) for ids in lm.token_ids(TEXTS)]
    base = run(lm, TEXTS, side)
    mask = chosen(positions, lengths, side)
    assert 0 < mask.sum() < mask.numel()
    for layer in range(lm.n_layers + 1):
        with sh.edit(lm, layer, add(v), positions):
            got = run(lm, TEXTS, side)
        assert torch.equal(got[:layer], base[:layer])
        assert torch.equal(got[layer], torch.where(mask[..., None], base[layer] + v, base[layer]))


@settings(deadline=None, max_examples=25)
@given(
    texts=st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=5).map(" ".join), min_size=1, max_size=4),
    positions=st.sampled_from(POSITIONS) | st.lists(st.integers(-2, 6), min_size=1, max_size=3),
    layer=st.integers(0, 4),
    side=st.sampled_from(SIDES),
)
def test_whatever_the_texts_an_edit_touches_the_counted_positions(lm, texts, positions, layer, side):
    lengths = [len(ids) for ids in lm.token_ids(texts)]
    numbers = positions if isinstance(positions, list) else []
    if any(n < -min(lengths) or n >= max(lengths) for n in numbers):
        with pytest.raises(ValueError, match="position"), sh.edit(lm, layer, add(vector(lm)), positions):
            forward(lm, texts, side)
        return
    base = run(lm, texts, side)
    with sh.edit(lm, layer, add(vector(lm)), positions):
        got = run(lm, texts, side)
    mask = chosen(positions, lengths, side)[..., None]
    assert torch.equal(got[layer], torch.where(mask, base[layer] + vector(lm), base[layer]))


def test_no_earlier_token_feels_an_edit_and_a_later_one_does(lm):
    length = len(lm.token_ids(TEXTS[0])[0])
    base = run(lm, TEXTS[:1])
    for p in (1, length // 2, length - 1):
        with sh.edit(lm, 1, add(vector(lm)), p):
            diff = (run(lm, TEXTS[:1]) - base)[:, 0].abs().amax(-1)
        assert diff[:, :p].max() == 0
        assert diff[1:, p].min() > 0.1
        if p < length - 1:
            assert diff[2:, p + 1].min() > 1e-4


@pytest.mark.parametrize("positions", POSITIONS, ids=str)
def test_an_edited_run_says_the_same_under_left_and_right_padding_and_alone(lm, positions):
    logits = {}
    for side in SIDES:
        with sh.edit(lm, 2, add(vector(lm)), positions):
            padded = forward(lm, TEXTS, side)
        mask = lm.pad(lm.token_ids(TEXTS), side=side)["attention_mask"].bool()
        logits[side] = [row[real] for row, real in zip(padded, mask, strict=True)]
    for i, text in enumerate(TEXTS):
        with sh.edit(lm, 2, add(vector(lm)), positions):
            alone = forward(lm, [text])[0]
        assert torch.allclose(logits["left"][i], alone, atol=1e-4 * alone.abs().max())
        assert torch.allclose(logits["right"][i], alone, atol=1e-4 * alone.abs().max())


def greedy_without_cache(lm, text, layer, v, positions, n):
    """Greedy decoding that computes everything anew at each step, with torch's own hooks."""
    ids = lm.token_ids(text)[0]
    prompt = len(ids)

    def change(state):
        index = torch.arange(state.shape[1])
        if positions in (None, "all"):
            mask = index >= 0
        elif positions == "prompt":
            mask = index < prompt
        else:
            numbers = [-1] if positions == "last" else [positions] if isinstance(positions, int) else positions
            mask = torch.isin(index, torch.tensor([p if p >= 0 else p + prompt for p in numbers]))
        return torch.where(mask[:, None], state + v, state)

    for _ in range(n):
        handle = plain_hook(lm, layer, change)
        try:
            with torch.no_grad():
                logits = lm.model(input_ids=torch.tensor([ids]), use_cache=False).logits
        finally:
            handle.remove()
        ids.append(int(logits[0, -1].argmax()))
    return lm.tokenizer.decode(ids[prompt:], skip_special_tokens=True)


@pytest.mark.parametrize("positions", ["all", "prompt", "last", 0, -1, 2, "past", [0, -2, "past"]], ids=str)
def test_generation_with_a_cache_is_edited_as_a_loop_without_one(lm, positions):
    texts = PROMPTS[:2]
    longest = max(len(ids) for ids in lm.token_ids(texts))
    if positions == "past":
        positions = longest + 1
    elif isinstance(positions, list):
        positions = [longest + 1 if p == "past" else p for p in positions]
    v = vector(lm, 60.0)
    plain = lm.generate(texts, max_new_tokens=6)
    for layer in (0, 2):
        with sh.edit(lm, layer, add(v), positions):
            batch = lm.generate(texts, max_new_tokens=6)
        assert batch == [greedy_without_cache(lm, text, layer, v, positions, 6) for text in texts]
        assert batch != plain, "the edit is too weak for this test to show anything"


@pytest.mark.parametrize("positions", ["all", "prompt", "last", 7], ids=str)
def test_generation_of_the_embedded_model_is_edited_as_a_loop_without_a_cache(embedded_lm, positions):
    lm = embedded_lm
    text = "The capital of France"
    v = 8 * sh.hidden_states(lm, "das ist sehr schlecht")[0, 12]
    with sh.edit(lm, 12, add(v), positions):
        got = lm.generate(text, max_new_tokens=5)
    assert got == greedy_without_cache(lm, text, 12, v, positions, 5)
    assert got != lm.generate(text, max_new_tokens=5)


def test_record_during_generation_holds_every_position(lm):
    inputs = lm.pad(lm.token_ids(PROMPTS), side="left")
    inputs.pop("position_ids", None)
    with sh.record(lm) as states:
        out = lm.model.generate(**inputs, max_new_tokens=5, do_sample=False, pad_token_id=lm.tokenizer.pad_token_id)
    mask = torch.cat([inputs["attention_mask"], torch.ones(len(PROMPTS), 4, dtype=torch.long)], 1)
    for text in range(len(PROMPTS)):
        ids = out[text, :-1][mask[text] > 0]
        with sh.record(lm) as alone, torch.no_grad():
            lm.model(input_ids=ids[None], use_cache=False)
        for k in range(lm.n_layers + 1):
            assert states[k].shape[1] == mask.shape[1]
            got = states[k][text][mask[text] > 0]
            assert torch.allclose(got, alone[k][0], atol=1e-4 * alone[k].abs().max()), (text, k)


def test_record_during_our_generate_has_the_edit_at_every_new_token(lm):
    v = vector(lm)
    with sh.record(lm) as states, sh.edit(lm, 2, lambda state: torch.zeros_like(state) + v):
        lm.generate("The dog", max_new_tokens=4)
    prompt = len(lm.token_ids("The dog")[0])
    assert states[2].shape[1] == prompt + 3
    assert torch.equal(states[2], v.expand_as(states[2]))


def test_a_cache_that_the_caller_keeps_is_counted_through(lm):
    ids = torch.tensor(lm.token_ids(TEXTS[:1]))
    with torch.no_grad(), sh.record(lm) as whole, sh.edit(lm, 1, add(vector(lm)), 4):
        lm.model(input_ids=ids, use_cache=False)
    with torch.no_grad(), sh.record(lm) as states, sh.edit(lm, 1, add(vector(lm)), 4):
        first = lm.model(input_ids=ids[:, :3], use_cache=True)
        lm.model(input_ids=ids[:, 3:], past_key_values=first.past_key_values, use_cache=True)
    for k in states:
        assert torch.allclose(states[k], whole[k], atol=1e-4 * whole[k].abs().max())


def test_a_cache_filled_before_the_block_is_counted_too(lm):
    ids = torch.tensor(lm.token_ids(TEXTS[:1]))
    with torch.no_grad(), sh.edit(lm, 1, add(vector(lm)), 4):
        whole = lm.model(input_ids=ids, use_cache=False).logits
    with torch.no_grad():
        first = lm.model(input_ids=ids[:, :3], use_cache=True)
        with sh.edit(lm, 1, add(vector(lm)), 4):
            rest = lm.model(input_ids=ids[:, 3:], past_key_values=first.past_key_values, use_cache=True).logits
    assert torch.allclose(rest, whole[:, 3:], atol=1e-4 * whole.abs().max())


def test_inputs_given_as_embeddings_are_read_and_edited_too(lm):
    ids = torch.tensor(lm.token_ids(TEXTS[:1]))
    with torch.no_grad():
        embedded = lm.model.get_input_embeddings()(ids)
    results = []
    for inputs in ({"input_ids": ids}, {"inputs_embeds": embedded}):
        with torch.no_grad(), sh.record(lm) as states, sh.edit(lm, 2, add(vector(lm)), -2):
            lm.model(**inputs, use_cache=False)
        results.append(torch.stack([states[k] for k in sorted(states)]))
    assert torch.equal(*results)


def test_of_two_edits_at_one_layer_the_one_entered_last_runs_first(lm):
    v = vector(lm)
    base = run(lm, ["The dog"])
    for layer in (0, 3):
        with sh.edit(lm, layer, lambda state: 2 * state), sh.edit(lm, layer, add(v)):
            assert torch.equal(run(lm, ["The dog"])[layer], 2 * (base[layer] + v))


def test_edits_at_two_layers_both_count(lm):
    v = vector(lm)
    with sh.edit(lm, 3, lambda state: -state, "last"), sh.edit(lm, 1, add(v), 0):
        got = run(lm, ["The dog and the"])
    after_one = plain_states(lm, ["The dog and the"], 1, lambda s: torch.cat([s[:, :1] + v, s[:, 1:]], 1))
    assert torch.equal(got[:3], after_one[:3])
    assert torch.equal(got[3][:, :-1], after_one[3][:, :-1])
    assert torch.equal(got[3][:, -1], -after_one[3][:, -1])


class TupleBlock(nn.Module):
    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, *args, **kwargs):
        return (self.block(*args, **kwargs), "attention weights")


class TupleLayers(nn.ModuleList):
    """Blocks that return a tuple each, under a decoder that was written for tensors."""

    def __getitem__(self, index):
        if not isinstance(index, slice):
            return super().__getitem__(index)
        return [lambda *args, block=block, **kwargs: block(*args, **kwargs)[0] for block in list(self)[index]]


def test_blocks_that_return_a_tuple_are_read_and_edited_alike(llama):
    inner = copy.deepcopy(llama.model)
    inner.model.layers = TupleLayers([TupleBlock(block) for block in inner.model.layers])
    old = sh.LanguageModel(inner, llama.tokenizer, llama.spec)
    assert torch.equal(run(old, TEXTS), run(llama, TEXTS))
    for layer in range(llama.n_layers + 1):
        with sh.edit(old, layer, add(vector(llama)), [0, -1]):
            got = run(old, TEXTS)
        with sh.edit(llama, layer, add(vector(llama)), [0, -1]):
            assert torch.equal(got, run(llama, TEXTS))


def test_hooks_are_gone_after_the_block(lm):
    before, logits = count_hooks(lm), forward(lm, TEXTS)
    with sh.record(lm), sh.edit(lm, 2, add(vector(lm))):
        assert count_hooks(lm) > before
    assert count_hooks(lm) == before
    assert torch.equal(forward(lm, TEXTS), logits)


def test_hooks_are_gone_after_an_exception_in_the_block(lm):
    before, logits = count_hooks(lm), forward(lm, TEXTS)
    with pytest.raises(KeyboardInterrupt), sh.record(lm), sh.edit(lm, 2, add(vector(lm))):
        raise KeyboardInterrupt
    assert count_hooks(lm) == before
    assert torch.equal(forward(lm, TEXTS), logits)


def test_hooks_are_gone_after_the_function_of_an_edit_raised(lm):
    def broken(state):
        raise RuntimeError("no idea")

    before, logits = count_hooks(lm), forward(lm, TEXTS)
    with pytest.raises(RuntimeError, match="no idea"), sh.edit(lm, 2, broken), sh.record(lm):
        lm(TEXTS)
    assert count_hooks(lm) == before
    assert torch.equal(forward(lm, TEXTS), logits)


def test_hooks_are_gone_when_entering_fails_half_way(lm, monkeypatch):
    before = count_hooks(lm)

    def broken(*args, **kwargs):
        raise RuntimeError("no hook here")

    monkeypatch.setattr(lm.blocks[2], "register_forward_hook", broken)
    with pytest.raises(RuntimeError, match="no hook here"), sh.record(lm):
        pass
    with pytest.raises(RuntimeError, match="no hook here"), sh.edit(lm, 3, add(vector(lm))):
        pass
    assert count_hooks(lm) == before


def test_a_layer_out_of_range_is_named_with_the_range(lm):
    before = count_hooks(lm)
    for layer in (-1, 5, 99):
        with pytest.raises(ValueError, match=rf"layer {layer} is out of range: tiny-.* 4 blocks.*give 0 .* to 4"):  # noqa: SIM117
            with sh.edit(lm, layer, add(vector(lm))):
                pass
        with pytest.raises(ValueError, match=rf"layer {layer} is out of range"), sh.record(lm, layers=[0, layer]):
            pass
        with pytest.raises(ValueError, match=rf"layer {layer} is out of range"), sh.record(lm, layers=layer):
            pass
    with pytest.raises(ValueError, match="layer True is out of range"), sh.edit(lm, True, add(vector(lm))):
        pass
    assert count_hooks(lm) == before


def test_an_edit_must_return_the_shape_it_was_given(llama):
    with pytest.raises(ValueError, match=r"edit at layer 2 returned None: return a tensor"):  # noqa: SIM117
        with sh.edit(llama, 2, lambda state: None):
            llama(["dog"])
    for wrong, shape in ((lambda s: s[:, :-1], "(1, 2, 32)"), (lambda s: s.mean(-1), "(1, 3)")):
        with pytest.raises(ValueError) as error, sh.edit(llama, 2, wrong):  # noqa: PT011
            llama(["dog dog"])
        assert f"layer 2 returned the shape {shape}" in str(error.value)
        assert "(1, 3, 32)" in str(error.value)


def test_an_unknown_word_for_a_position_is_named_with_those_there_are(llama):
    for wrong in ("first", "", []):
        with pytest.raises(ValueError, match=r"positions is .*: give 'all'.*'last', a number or a list") as error:  # noqa: SIM117
            with sh.edit(llama, 2, add(vector(llama)), wrong):
                llama(["dog"])
        assert repr(wrong) in str(error.value)


def test_the_message_on_positions_names_every_word_that_edit_takes(llama):
    with pytest.raises(ValueError, match="'prompt'"), sh.edit(llama, 2, add(vector(llama)), "first"):
        pass


def test_a_negative_position_before_a_text_names_the_text_and_the_range(llama):
    short, long = "dog", "The dog and the cat"
    n = len(llama.token_ids(short)[0])
    with pytest.raises(ValueError, match=rf"position -{n + 1} is out of range: text 1 has {n} tokens.*-1 .* to -{n}"):  # noqa: SIM117
        with sh.edit(llama, 2, add(vector(llama)), -(n + 1)):
            llama([long, short])


def test_a_position_that_is_never_reached_is_named_with_the_longest_text(llama):
    n = len(llama.token_ids("The dog")[0])
    with pytest.raises(ValueError, match=rf"position {n} was never reached.*longest text that ran has {n} tokens"):  # noqa: SIM117
        with sh.edit(llama, 2, add(vector(llama)), [0, n]):
            llama(["dog", "The dog"])
    with sh.edit(llama, 2, add(vector(llama)), [0, n]):
        llama.generate("The dog", max_new_tokens=3)


def test_an_exception_in_the_block_is_not_hidden_by_a_position_never_reached(llama):
    def run_and_fail():
        llama(["dog"])
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"), sh.edit(llama, 2, add(vector(llama)), 50):
        run_and_fail()


@pytest.mark.parametrize("positions", ["last", 1, [0, -1]])
def test_a_function_that_works_in_place_reaches_the_chosen_positions_only(llama, positions):
    def blank(state):
        state[:] = 0
        return state

    texts = ["dog", "the quick brown fox"]
    with sh.record(llama, 2) as in_place, sh.edit(llama, 2, blank, positions):
        llama(texts)
    with sh.record(llama, 2) as fresh, sh.edit(llama, 2, torch.zeros_like, positions):
        llama(texts)
    assert torch.equal(in_place[2], fresh[2])
    assert (in_place[2] != 0).any()


def test_layers_and_positions_may_come_out_of_a_frame_or_an_array(llama):
    with sh.record(llama, np.int64(2)) as states:
        llama("the dog")
    with sh.record(llama, np.array([1, 2])) as both, sh.edit(llama, np.int64(1), torch.zeros_like, np.array([0, 1])):
        llama("the dog")
    assert list(states) == [2]
    assert list(both) == [1, 2]
    assert (both[1][0, :2] == 0).all()


def test_a_pass_whose_padding_cannot_be_told_is_refused(llama):
    inputs = llama.pad(llama.token_ids(["dog", "the quick brown fox"]), side="left")
    inputs.pop("position_ids", None)
    with (
        pytest.raises(ValueError, match=r"static cache.*generate with the default cache"),
        sh.edit(llama, 2, torch.zeros_like, "last"),
    ):
        llama.model.generate(**inputs, max_new_tokens=3, cache_implementation="static", pad_token_id=0)
