import copy

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import semhub_utils as sh
from semhub_utils import lens

TEXTS = ["The dog and the cat see a bird in the water.", "昨天我去了北京", "El perro", "for w in words:"]
IDS = {"a": 0, "b": 7, "c": 300, "d": 545}


def exact_norm(module, state):
    """The norm in float64, written out: a module of transformers may fall back to float32 inside."""
    if isinstance(module, torch.nn.LayerNorm):
        return copy.deepcopy(module).double()(state)
    kind = type(module).__name__
    weight = module.weight.detach().double()
    if kind == "CohereLayerNorm":
        centred = state - state.mean(-1, keepdim=True)
        return weight * centred / (centred.pow(2).mean(-1, keepdim=True) + module.variance_epsilon).sqrt()
    assert kind.endswith("RMSNorm")
    eps = getattr(module, "variance_epsilon", None) or module.eps
    factor = 1 + weight if kind.startswith("Gemma") else weight
    return state / (state.pow(2).mean(-1, keepdim=True) + eps).sqrt() * factor


def exact_scale(lm, logits):
    config = lm.model.config
    if config.model_type == "cohere":
        return logits * config.logit_scale
    if config.model_type == "granite":
        return logits / config.logits_scaling
    if config.model_type == "gemma2":
        return config.final_logit_softcapping * (logits / config.final_logit_softcapping).tanh()
    return logits


@torch.no_grad()
def exact_logits(lm, text, norm):
    """(layers, tokens, vocabulary) in float64: transformers' hidden states, and its own logits as the last row."""
    ids = torch.tensor(lm.token_ids(text))
    out = lm.model(input_ids=ids, output_hidden_states=True, use_cache=False)
    head = copy.deepcopy(lm.head).double()
    rows = [state[0].double() for state in out.hidden_states[:-1]]
    rows = [exact_norm(lm.final_norm, row) if norm == "final" else row for row in rows]
    return torch.stack([*(exact_scale(lm, head(row)) for row in rows), out.logits[0].double()])


def check(frame, lm, texts, norm, tolerance=1e-4, layers=None):
    """Every row of a lens on token ids against the float64 statement; ranks up to what rounding may swap."""
    exact = [exact_logits(lm, text, norm) for text in texts]
    wanted = IDS if layers is None else layers
    for row in frame.itertuples():
        logits = exact[row.text][row.layer, row.position]
        own = logits[wanted[row.target]]
        scale = float(logits.abs().max())
        assert abs(row.logprob - float(logits.log_softmax(-1)[wanted[row.target]])) < tolerance * scale, row
        margin = 1e-5 * scale
        assert int((logits > own + margin).sum()) <= row.rank <= int((logits > own - margin).sum()) - 1, row
        if row.layer == lm.n_layers:
            assert row.rank == int((logits > own).sum()), row


@pytest.mark.parametrize("norm", ["final", "none"])
def test_every_row_is_the_float64_statement_and_the_last_the_models_own_logits(lm, norm):
    frame = sh.logit_lens(lm, TEXTS, IDS, positions="all", norm=norm)
    tokens = sum(len(ids) for ids in lm.token_ids(TEXTS))
    assert len(frame) == tokens * (lm.n_layers + 1) * len(IDS)
    check(frame, lm, TEXTS, norm)


@pytest.mark.parametrize("norm", ["final", "none"])
def test_heads_that_cap_scale_or_shift_are_read_as_the_model_reads_them(unusual, norm):
    frame = sh.logit_lens(unusual, TEXTS, IDS, positions="all", norm=norm)
    check(frame, unusual, TEXTS, norm)


def test_the_unusual_heads_are_unusual(unusual):
    state = sh.hidden_states(unusual, "The dog")[0, -1]
    with torch.no_grad():
        plain = torch.nn.functional.linear(unusual.final_norm(state), unusual.head.weight)
        logits = unusual("The dog").logits[0, -1]
    if unusual.model.config.model_type in ("gpt_neox", "qwen3"):
        assert torch.allclose(plain, logits, atol=1e-5)
    else:
        assert (plain - logits).abs().max() > 0.05


def test_without_the_norm_intermediate_rows_differ_and_the_last_does_not(lm):
    final = sh.logit_lens(lm, TEXTS, IDS)
    none = sh.logit_lens(lm, TEXTS, IDS, norm="none")
    last = final.layer == lm.n_layers
    assert np.array_equal(final[last].logprob, none[last].logprob)
    assert ((final[~last].logprob - none[~last].logprob).abs() > 1e-3).mean() > 0.9
    assert (final.attrs["norm"], none.attrs["norm"]) == ("final", "none")


@pytest.mark.parametrize("norm", ["final", "none"])
def test_the_last_row_of_the_embedded_model_is_its_own_logits(embedded_lm, norm):
    lm = embedded_lm
    ids = {"a": 0, "b": 506, "c": 100_000, "d": 262_143}
    texts = ["The capital of France", "法国的首都是"]
    frame = sh.logit_lens(lm, texts, ids, positions=[1, -1], norm=norm)
    frame = frame[frame.layer == lm.n_layers]
    for row in frame.itertuples():
        logits = lm(texts[row.text]).logits[0, row.position].double()
        tolerance = 1e-4 * float(logits.abs().max())
        assert abs(row.logprob - float(logits.log_softmax(-1)[ids[row.target]])) < tolerance
        # Of tokens that are as good as even, which comes first depends on the processor.
        own, near = logits[ids[row.target]], 1e-6 * float(logits.abs().max())
        assert int((logits > own + near).sum()) <= row.rank <= int((logits > own - near).sum())


@pytest.mark.parametrize("norm", ["final", "none"])
def test_middle_rows_of_the_embedded_model_are_the_float64_statement(embedded_lm, norm):
    lm = embedded_lm
    words = [506, 100_000, 9079]
    frame = sh.logit_lens(lm, "法国的首都是", {str(w): w for w in words}, norm=norm)
    with torch.no_grad():
        states = lm.model(**lm.encode("法国的首都是"), output_hidden_states=True).hidden_states
    weight = lm.head.weight.detach().double()
    for layer in (0, 9, 17):
        state = states[layer][0, -1].double()
        logits = weight @ (exact_norm(lm.final_norm, state) if norm == "final" else state)
        got = torch.tensor(frame[frame.layer == layer].logprob.to_numpy())
        tolerance = 1e-4 * float(logits.abs().max())
        assert torch.allclose(got.double(), logits.log_softmax(-1)[words], rtol=0, atol=tolerance)


def test_the_embedded_model_thinks_in_english_before_it_answers_in_chinese(embedded_lm):
    top = sh.top_tokens(embedded_lm, "法国的首都是", k=5).groupby("layer").token.apply(list)
    assert top[12][0] == " the"
    assert top[17][0] == "法国"
    assert top[18][:2] == ["法国", "巴黎"]


@pytest.mark.parametrize("norm", ["final", "none"])
def test_top_tokens_are_those_of_the_float64_statement(lm, norm):
    text = TEXTS[0]
    exact = exact_logits(lm, text, norm).log_softmax(-1)
    top = sh.top_tokens(lm, text, k=4, positions="all", norm=norm)
    assert len(top) == exact.shape[0] * exact.shape[1] * 4
    for (layer, position), group in top.groupby(["layer", "position"]):
        best = exact[layer, position].topk(4)
        assert list(group["rank"]) == [0, 1, 2, 3]
        assert np.allclose(np.log(group.prob), best.values, atol=1e-4 * float(exact[layer, position].abs().max()))
        assert list(group.token) == lm.token_text(best.indices), (layer, position)


def test_top_tokens_of_an_unusual_head_end_with_the_models_own(unusual):
    logits = unusual("The dog").logits[0, -1].log_softmax(-1)
    top = sh.top_tokens(unusual, "The dog", k=3)
    last = top[top.layer == unusual.n_layers]
    assert np.allclose(np.log(last.prob), logits.topk(3).values, atol=1e-4)
    assert list(last.token) == unusual.token_text(logits.topk(3).indices)


def test_all_probabilities_of_a_row_sum_to_one(lm):
    size = lm.model.config.vocab_size
    top = sh.top_tokens(lm, "The dog", k=size + 50)
    assert len(top) == size * (lm.n_layers + 1)
    assert np.allclose(top.groupby("layer").prob.sum(), 1, atol=1e-5)
    assert (top.groupby("layer").prob.diff().dropna() <= 0).all()


@settings(deadline=None, max_examples=20)
@given(pairs=st.sampled_from([1, 50, 999, 4001, 20_011]), k=st.integers(1, 9), norm=st.sampled_from(["final", "none"]))
def test_the_size_of_a_chunk_of_the_vocabulary_does_not_matter(lm, pairs, k, norm):
    whole = sh.logit_lens(lm, TEXTS[:2], IDS, norm=norm), sh.top_tokens(lm, TEXTS[0], k, [0, -1], norm)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lens, "_PAIRS", pairs)
        parts = sh.logit_lens(lm, TEXTS[:2], IDS, norm=norm), sh.top_tokens(lm, TEXTS[0], k, [0, -1], norm)
    for one, other in zip(whole, parts, strict=True):
        pd.testing.assert_frame_equal(one, other, rtol=1e-4, atol=1e-5)


def test_the_size_of_a_chunk_does_not_matter_to_the_embedded_model(embedded_lm, monkeypatch):
    whole = sh.top_tokens(embedded_lm, "The capital of France is", k=8)
    monkeypatch.setattr(lens, "_PAIRS", 1_000_003)
    parts = sh.top_tokens(embedded_lm, "The capital of France is", k=8)
    pd.testing.assert_frame_equal(whole[whole.layer > 1], parts[parts.layer > 1], rtol=1e-3, atol=1e-6)


def test_a_word_is_the_sum_of_its_two_spellings_and_the_better_rank(gpt2):
    spellings = [gpt2.tokenizer(s).input_ids[0] for s in (" dog", "dog")]
    assert spellings[0] != spellings[1]
    word = sh.logit_lens(gpt2, TEXTS, {"dog": "dog"}, positions="all")
    single = sh.logit_lens(gpt2, TEXTS, {"with": spellings[0], "without": spellings[1]}, positions="all")
    one, other = (single[single.target == name].reset_index() for name in ("with", "without"))
    assert np.allclose(word.logprob, np.logaddexp(one.logprob, other.logprob), atol=1e-5)
    assert np.array_equal(word["rank"], np.minimum(one["rank"], other["rank"]))
    assert (one["rank"] < other["rank"]).nunique() == 2


def test_the_likeliest_token_has_rank_0(lm):
    best = int(lm("The dog").logits[0, -1].argmax())
    frame = sh.logit_lens(lm, "The dog", {"best": best, "other": (best + 1) % 500})
    last = frame[frame.layer == lm.n_layers].set_index("target")
    assert last.loc["best", "rank"] == 0
    assert last.loc["other", "rank"] > 0


def test_ranks_stay_exact_where_logits_are_rounded_to_bfloat16(llama_copy):
    llama_copy.model.to(torch.bfloat16)
    ids = {str(i): i for i in range(0, 600, 20)}
    frame = sh.logit_lens(llama_copy, "The dog", ids)
    last = frame[frame.layer == llama_copy.n_layers]
    logits = llama_copy("The dog").logits[0, -1].float()
    assert list(last["rank"]) == [int((logits > logits[i]).sum()) for i in ids.values()]


def test_the_frame_is_tidy_and_in_order(lm):
    texts = ["The dog and the cat see a bird in the water.", "1 + 2 = 3, 10 + 20", "words = ['a', 'b']"]
    frame = sh.logit_lens(lm, texts, IDS, positions=[2, 0, -1], batch_size=2)
    columns = ["text", "position", "layer", "target", "token", "logprob", "rank", "shared", "whole"]
    assert list(frame.columns) == columns
    lengths = [len(ids) for ids in lm.token_ids(texts)]
    expected = [
        (text, position, layer, target)
        for text, n in enumerate(lengths)
        for position in sorted([2, 0, n - 1])
        for layer in range(lm.n_layers + 1)
        for target in IDS
    ]
    assert list(frame[columns[:4]].itertuples(index=False, name=None)) == expected
    assert list(frame.index) == list(range(len(frame)))
    assert list(frame.token[:4]) == lm.token_text(list(IDS.values()))
    assert np.issubdtype(frame["rank"].dtype, np.integer)


def test_neither_the_batch_size_nor_the_side_of_padding_matters(lm, monkeypatch):
    alone = sh.logit_lens(lm, TEXTS, IDS, positions=[0, -1], batch_size=1)
    for side in ("left", "right"):
        monkeypatch.setattr(lm.tokenizer, "padding_side", side)
        for batch_size in (2, 3, 32):
            batched = sh.logit_lens(lm, TEXTS, IDS, positions=[0, -1], batch_size=batch_size)
            pd.testing.assert_frame_equal(alone, batched, rtol=1e-4, atol=1e-4)


@settings(deadline=None, max_examples=15)
@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    batch_size=st.integers(1, 7),
    position=st.sampled_from(["last", "all", 0, -1, [0, -1]]),
)
def test_texts_of_any_length_keep_their_number(lm, counts, batch_size, position):
    texts = [" ".join(["dog", "cat", "water"][i % 3] for i in range(n)) for n in counts]
    frame = sh.logit_lens(lm, texts, {"x": 9}, positions=position, batch_size=batch_size)
    for i, text in enumerate(texts):
        alone = sh.logit_lens(lm, text, {"x": 9}, positions=position)
        own = frame[frame.text == i]
        assert list(own.position) == list(alone.position)
        assert np.allclose(own.logprob, alone.logprob, atol=1e-4)


def test_each_text_may_have_its_own_targets(lm):
    own = [{"x": 5}, {"x": 9}, {"x": 20}, {"x": 5}]
    frame = sh.logit_lens(lm, TEXTS, own, batch_size=2)
    for i, (text, targets) in enumerate(zip(TEXTS, own, strict=True)):
        alone = sh.logit_lens(lm, text, targets)
        assert np.allclose(frame[frame.text == i].logprob, alone.logprob, atol=1e-4)
        assert list(frame[frame.text == i].token) == list(alone.token)


def test_targets_with_one_and_with_two_spellings_go_together(gpt2):
    frame = sh.logit_lens(gpt2, "The", {"id": 9, "word": "dog"})
    alone = sh.logit_lens(gpt2, "The", {"id": 9})
    assert np.allclose(frame[frame.target == "id"].logprob, alone.logprob, atol=1e-5)
    assert np.array_equal(frame[frame.target == "id"]["rank"], alone["rank"])


def test_an_edit_around_the_call_is_read(lm):
    weight = lm.head.weight.detach()
    direction = 50 * weight[7] / weight[7].norm()
    before = sh.logit_lens(lm, "The dog", {"x": 7}, norm="none").set_index("layer").logprob
    with sh.edit(lm, 2, lambda state: state + direction, "last"):
        after = sh.logit_lens(lm, "The dog", {"x": 7}, norm="none").set_index("layer").logprob
    assert (after[:2] == before[:2]).all()
    assert after[2] > before[2]
    assert (after[2:] != before[2:]).all()


def test_positions_of_top_tokens_count_from_either_end(lm):
    n = len(lm.token_ids(TEXTS[0])[0])
    ends = sh.top_tokens(lm, TEXTS[0], 2, positions=[0, -1])
    assert set(ends.position) == {0, n - 1}
    whole = sh.top_tokens(lm, TEXTS[0], 2, positions="all")
    picked = whole[whole.position.isin([0, n - 1])].reset_index(drop=True)
    pd.testing.assert_frame_equal(ends, picked, rtol=1e-4, atol=1e-6)
    assert list(ends.columns) == ["layer", "position", "token", "rank", "prob"]


def test_a_position_that_is_named_twice_is_shown_once(lm):
    n = len(lm.token_ids("The dog")[0])
    once = sh.logit_lens(lm, "The dog", IDS, positions="last")
    pd.testing.assert_frame_equal(sh.logit_lens(lm, "The dog", IDS, positions=[n - 1, -1]), once)
    top = sh.top_tokens(lm, "The dog", positions=[n - 1, -1])
    pd.testing.assert_frame_equal(top, sh.top_tokens(lm, "The dog", positions="last"))


def test_an_unknown_norm_is_named(llama):
    for call in (
        lambda: sh.logit_lens(llama, "dog", IDS, norm="last"),
        lambda: sh.top_tokens(llama, "dog", norm="last"),
    ):
        with pytest.raises(ValueError, match=r"norm is 'last': give 'final' .* or 'none'"):
            call()


def test_a_k_below_1_is_named(llama):
    for k in (0, -3, True):
        with pytest.raises(ValueError, match=f"k is {k}: give 1 or more"):
            sh.top_tokens(llama, "dog", k=k)


def test_a_position_out_of_range_names_the_text(llama):
    n = len(llama.token_ids("dog")[0])
    for position in (n, -(n + 1), [0, n]):
        with pytest.raises(
            ValueError, match=rf"position -?{n}.* is out of range: text 1 has {n} tokens|position -{n + 1}"
        ):
            sh.logit_lens(llama, ["The dog and", "dog"], IDS, positions=position)
    with pytest.raises(ValueError, match=rf"position 50 is out of range: text 0 has {n} tokens"):
        sh.top_tokens(llama, "dog", positions=50)


def test_an_unknown_position_is_named(llama):
    for position in ("first", "mean", []):
        with pytest.raises(
            ValueError, match=r"positions is .*give 'all', 'audio', 'image', 'text', 'last', a number or a list"
        ):
            sh.logit_lens(llama, "dog", IDS, positions=position)


def test_the_prompt_is_no_position_of_a_lens_and_is_named(llama):
    with pytest.raises(ValueError, match="positions is 'prompt'"):
        sh.logit_lens(llama, "dog", IDS, positions="prompt")


def test_an_empty_text_or_list_is_named(llama):
    with pytest.raises(ValueError, match="text 1 is empty"):
        sh.logit_lens(llama, ["dog", ""], IDS)
    with pytest.raises(ValueError, match="list of texts is empty"):
        sh.logit_lens(llama, [], IDS)
    with pytest.raises(ValueError, match="text 0 is empty"):
        sh.top_tokens(llama, "")


def test_a_batch_size_below_1_is_named(llama):
    for batch_size in (0, -2, True):
        with pytest.raises(ValueError, match=f"batch_size is {batch_size}: give 1 or more"):
            sh.logit_lens(llama, "dog", IDS, batch_size=batch_size)
