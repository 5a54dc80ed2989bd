"""Steering adds what it says, where it says, and nothing else: under a cache, padding, sampling and nesting."""

import pytest
import torch

import semhub_utils as sh
from semhub_utils.hooks import resumed
from semhub_utils.steering import push

GOOD = ["the dog sees", "a good day in the water", "El gato"]
BAD = ["the cat sees", "a bad day", "El perro", "Der Hund"]
PROMPTS = ["The dog and the cat see a bird", "Die Katze", "法国的首都是", "El perro y el gato ven"]


@pytest.fixture
def vector(lm):
    return sh.steering_vector(lm, GOOD, BAD, 2)


def states_alone(lm, text):
    with sh.record(lm) as states:
        lm(text)
    return {k: h[0].double() for k, h in states.items()}


def test_an_activation_vector_is_the_difference_of_means(lm):
    alone = {text: states_alone(lm, text) for text in GOOD + BAD}
    for layer in (0, 2, lm.n_layers):
        expected = sum(alone[t][layer][-1] for t in GOOD) / 3 - sum(alone[t][layer][-1] for t in BAD) / 4
        norms = torch.cat([alone[t][layer][1:].norm(dim=-1) for t in GOOD + BAD])
        made = sh.steering_vector(lm, GOOD, BAD, layer)
        torch.testing.assert_close(made.direction.double(), expected, atol=1e-4, rtol=1e-4)
        assert made.scale == pytest.approx(float(norms.median()), rel=1e-4)
        assert made.layer == layer


def test_the_position_is_that_of_hidden_states(lm):
    read = {text: states_alone(lm, text)[1] for text in GOOD + BAD}
    made = sh.steering_vector(lm, GOOD, BAD, 1, position="mean")
    expected = sum(read[t][1:].mean(0) for t in GOOD) / 3 - sum(read[t][1:].mean(0) for t in BAD) / 4
    torch.testing.assert_close(made.direction.double(), expected, atol=1e-4, rtol=1e-4)


def test_an_unembedding_vector_is_a_difference_of_rows(lm):
    made = sh.steering_vector(lm, ["dog", "cat"], ["bird"], 2, method="unembedding")

    def rows(*words):
        spellings = [s for word in words for s in dict.fromkeys(first_tokens(lm, word))]
        return lm.head.weight[spellings].double().mean(0)

    expected = rows("dog", "cat") - rows("bird")
    torch.testing.assert_close(made.direction.double(), expected.detach(), atol=1e-5, rtol=1e-4)
    assert made.scale == sh.steering_vector(lm, ["dog", "cat"], ["bird"], 2).scale


def first_tokens(lm, word):
    for spelling in (" " + word, word):
        ids = lm.tokenizer(spelling, add_special_tokens=False).input_ids
        yield ids[0]


def test_strength_zero_changes_no_bit(lm, vector):
    plain = lm(PROMPTS).logits
    with sh.steer(lm, vector, 0.0):
        assert torch.equal(lm(PROMPTS).logits, plain)
    assert torch.equal(lm(PROMPTS).logits, plain)


def test_the_push_is_the_share_of_the_norm_at_the_positions_and_no_others(lm, vector):
    text = PROMPTS[0]
    plain = states_alone(lm, text)
    cases = [("all", slice(None)), ("prompt", slice(None)), ("last", slice(-1, None)), (1, slice(1, 2))]
    for positions, touched in [*cases, ([0, -2], [0, -2])]:
        with sh.steer(lm, vector, -0.3, positions):
            steered = states_alone(lm, text)
        expected = torch.zeros_like(plain[2])
        expected[touched] = -0.3 * vector.scale * vector.unit.double()
        torch.testing.assert_close(steered[2] - plain[2], expected, atol=1e-5, rtol=1e-4)
        assert torch.equal(steered[1], plain[1])


def test_an_absolute_strength_is_the_length_of_the_push(lm, vector):
    plain = states_alone(lm, PROMPTS[1])[2]
    with sh.steer(lm, vector, 2.5, unit="absolute"):
        moved = states_alone(lm, PROMPTS[1])[2] - plain
    torch.testing.assert_close(moved.norm(dim=-1), torch.full((len(moved),), 2.5).double(), atol=1e-4, rtol=1e-4)


def test_two_layers_nest(lm, vector):
    other = sh.random_vector(sh.steering_vector(lm, GOOD, BAD, 3), seed=1)
    with sh.steer(lm, vector, 0.4):
        lower_only = states_alone(lm, PROMPTS[0])
    for outer, inner in (((vector, 0.4), (other, -0.7)), ((other, -0.7), (vector, 0.4))):
        with sh.steer(lm, *outer), sh.steer(lm, *inner):
            both = states_alone(lm, PROMPTS[0])
        assert torch.equal(both[2], lower_only[2])
        pushed = lower_only[3] + push(lm, other, -0.7).double()
        torch.testing.assert_close(both[3], pushed, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(both[4], lower_only[4], atol=1e-3)


def test_two_vectors_at_one_layer_add_up(lm, vector):
    other = sh.random_vector(vector, seed=3)
    plain = states_alone(lm, PROMPTS[0])[2]
    with sh.steer(lm, vector, 0.4), sh.steer(lm, other, 0.2):
        both = states_alone(lm, PROMPTS[0])[2]
    expected = plain + (push(lm, vector, 0.4) + push(lm, other, 0.2)).double()
    torch.testing.assert_close(both, expected, atol=1e-5, rtol=1e-5)


def test_padding_on_either_side_changes_nothing(lm, vector):
    tokens = lm.token_ids(PROMPTS)
    with sh.steer(lm, vector, 0.5):
        alone = [lm(text).logits[0, -1] for text in PROMPTS]
        for side in ("left", "right"):
            inputs = lm.pad(tokens, side=side)
            logits = lm.model(**inputs).logits
            for row, ids in enumerate(tokens):
                at = -1 if side == "left" else len(ids) - 1
                torch.testing.assert_close(logits[row, at], alone[row], atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("positions", ["all", "prompt", 1])
def test_generation_with_a_cache_equals_generation_without(lm, vector, positions):
    """Each step of the cached run against a whole pass over all tokens so far, steered at the same places."""
    (prompt,) = lm.token_ids(PROMPTS[:1])
    inputs = {name: tensor for name, tensor in lm.pad([prompt]).items() if name != "position_ids"}
    with sh.steer(lm, vector, 0.5, positions):
        out = lm.model.generate(
            **inputs,
            max_new_tokens=8,
            do_sample=False,
            output_scores=True,
            return_dict_in_generate=True,
            pad_token_id=0,
        )
    written = out.sequences[0].tolist()
    assert len(out.scores) == 8
    for step, scores in enumerate(out.scores):
        seen = written[: len(prompt) + step]
        places = list(range(len(prompt))) if positions == "prompt" else positions
        with sh.steer(lm, vector, 0.5, places), torch.no_grad():
            whole = lm.model(**lm.pad([seen]), use_cache=False).logits[0, -1]
        torch.testing.assert_close(scores[0], whole, atol=2e-4, rtol=2e-4)


def test_a_batch_of_prompts_is_continued_as_each_alone(lm, vector):
    with sh.steer(lm, vector, 0.5):
        together = lm.generate(PROMPTS, max_new_tokens=6)
        assert together == [lm.generate(text, max_new_tokens=6) for text in PROMPTS]
    assert together != lm.generate(PROMPTS, max_new_tokens=6)


def test_sampling_under_steering_repeats_with_its_seed(lm, vector):
    how = dict(max_new_tokens=12, temperature=1.0, top_p=0.9)
    plain = lm.generate(PROMPTS, seed=5, **how)
    with sh.steer(lm, vector, 0.5):
        first, again, other = (lm.generate(PROMPTS, seed=seed, **how) for seed in (5, 5, 6))
    assert first == again
    assert first != other
    assert first != plain
    with sh.steer(lm, vector, 0.0):
        assert lm.generate(PROMPTS, seed=5, **how) == plain


def test_sampling_draws_from_the_steered_distribution(llama):
    """Of 4,000 draws of one token each token comes as often as the steered model says it should."""
    vector = sh.steering_vector(llama, GOOD, BAD, 2)
    plain = llama("The dog").logits[0, -1].softmax(-1)
    with sh.steer(llama, vector, 3.0):
        expected = llama("The dog").logits[0, -1].softmax(-1)
        inputs = llama.pad(llama.token_ids(["The dog"] * 4000), side="left")
        inputs.pop("position_ids", None)
        torch.manual_seed(0)
        out = llama.model.generate(**inputs, max_new_tokens=1, do_sample=True, top_k=0, pad_token_id=0)
    counts = torch.bincount(out[:, -1], minlength=len(expected))

    def farthest(p):
        return float(((counts / 4000 - p).abs() - 5 * (p * (1 - p) / 4000).sqrt()).max())

    assert farthest(expected) < 1e-3
    assert farthest(plain) > 0.03


def test_a_random_vector_is_like_its_own_in_all_but_direction(lm, vector):
    drawn = [sh.random_vector(vector, seed) for seed in range(200)]
    assert {(d.layer, d.scale) for d in drawn} == {(vector.layer, vector.scale)}
    for d in drawn:
        assert float(d.direction.norm()) == pytest.approx(float(vector.direction.norm()), rel=1e-5)
    cosines = torch.stack([d.unit @ vector.unit for d in drawn])
    # In d dimensions the cosine of two random directions has mean 0 and variance 1 / d.
    assert abs(float(cosines.mean())) < 4 / (lm.d_model * 200) ** 0.5
    assert float(cosines.var()) == pytest.approx(1 / lm.d_model, rel=0.5)
    assert torch.equal(sh.random_vector(vector, 7).direction, drawn[7].direction)


@pytest.mark.parametrize("side", ["left", "right"])
def test_what_is_resumed_equals_the_whole_run(lm, side):
    inputs = lm.pad(lm.token_ids(PROMPTS), side=side)
    check_resumed(lm, inputs)


def test_what_is_resumed_equals_the_whole_run_for_unusual_heads(unusual):
    check_resumed(unusual, unusual.pad(unusual.token_ids(PROMPTS)))


def check_resumed(lm, inputs):
    # None, but where transformers itself put one there, as 4.57 does when it is asked for hidden states.
    before = [vars(block).get("forward") for block in lm.blocks]
    for layer in range(lm.n_layers + 1):
        vector = sh.steering_vector(lm, GOOD, BAD, layer)
        with sh.record(lm, layer) as states:
            lm.run(inputs)
        below = states[layer]
        with sh.steer(lm, vector, 0.5), sh.record(lm) as whole:
            lm.run(inputs)
        with resumed(lm, layer, below), sh.steer(lm, vector, 0.5), sh.record(lm) as part:
            lm.run(inputs)
        for k in range(max(layer, 1), lm.n_layers + 1):
            assert torch.equal(part[k], whole[k])
    assert [vars(block).get("forward") for block in lm.blocks] == before


def test_the_blocks_are_whole_again_after_an_error(llama):
    before = [vars(block).get("forward") for block in llama.blocks]
    with pytest.raises(RuntimeError, match="on purpose"), resumed(llama, 3, torch.zeros(1, 2, 32)):
        raise RuntimeError("on purpose")
    assert [vars(block).get("forward") for block in llama.blocks] == before


def test_bad_input_is_named(llama, gpt2, untyped):
    good = sh.steering_vector(llama, GOOD, BAD, 2)
    make = untyped(sh.steering_vector)
    with pytest.raises(ValueError, match=r"method is 'probe': give 'activation'"):
        make(llama, GOOD, BAD, 2, method="probe")
    with pytest.raises(ValueError, match="one side has no texts"):
        make(llama, GOOD, [], 2)
    with pytest.raises(ValueError, match="the direction is zero"):
        make(llama, GOOD, GOOD, 2)
    with pytest.raises(ValueError, match=r"layer 9 is out of range"):
        make(llama, GOOD, BAD, 9)
    with pytest.raises(ValueError, match=r"single token to tiny-gpt2, a sink.*'It is a'"):
        make(gpt2, ["a"], ["b"], 2)
    with pytest.raises(ValueError, match="no token"):
        make(llama, [" "], ["dog"], 2, method="unembedding")
    for strength in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"strength is {strength}: give a finite"), sh.steer(llama, good, strength):
            pass
    with pytest.raises(ValueError, match="unit is 'norm'"), sh.steer(llama, good, 0.1, unit="norm"):
        pass
    wide = sh.SteeringVector(torch.ones(48), 2, 1.0)
    with pytest.raises(ValueError, match="48 dimensions and tiny-llama has 32"), sh.steer(llama, wide, 0.1):
        pass
    with pytest.raises(ValueError, match="not finite"):
        sh.SteeringVector(torch.tensor([1.0, torch.nan]), 2, 1.0)
    with pytest.raises(ValueError, match="scale is 0"):
        sh.SteeringVector(torch.ones(3), 2, 0.0)
