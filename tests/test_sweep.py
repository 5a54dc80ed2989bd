"""A sweep is what steering does one text at a time, in batches, and goes on where it was stopped."""

import json

import pandas as pd
import pytest

import semhub_utils as sh

PROMPTS = ["The dog and the cat see a bird", "Die Katze", "法国的首都是", "El perro y el gato ven", "The dog"]
WORDS = (["dog", "bird"], ["gato", "Hund"])
STRENGTHS = [-0.5, 0.0, 0.5]


@pytest.fixture
def vectors(lm):
    return vectors_of(lm)


def vectors_of(lm):
    made = {f"layer {k}": sh.steering_vector(lm, ["the dog", "a day"], ["the cat", "a bird"], k) for k in (0, 2, 4)}
    return made | {"random": sh.random_vector(made["layer 2"], 1)}


def test_log_odds_equal_those_of_each_text_steered_alone(lm, vectors):
    frame = sh.sweep(lm, vectors, PROMPTS, STRENGTHS, words=WORDS, max_new_tokens=0, batch_size=2)
    assert len(frame) == 4 * 3 * 5
    for row in frame.itertuples():
        assert row.layer == vectors[row.vector].layer
        with sh.steer(lm, vectors[row.vector], row.strength):
            expected = sh.log_odds(lm, PROMPTS[row.prompt], *WORDS)
        assert row.log_odds == pytest.approx(float(expected), abs=2e-4)
    assert frame.groupby("vector", sort=False).ngroup().is_monotonic_increasing  # the order they were given in


@pytest.mark.parametrize("positions", ["prompt", "last", 1])
def test_positions_are_those_of_steer(llama, positions):
    vectors = vectors_of(llama)
    frame = sh.sweep(llama, vectors, PROMPTS[:2], [0.5], words=WORDS, max_new_tokens=0, positions=positions)
    for row in frame.itertuples():
        with sh.steer(llama, vectors[row.vector], row.strength, positions):
            assert row.log_odds == pytest.approx(float(sh.log_odds(llama, PROMPTS[row.prompt], *WORDS)), abs=2e-4)


def test_words_of_each_prompt_are_its_own(llama):
    vectors, pairs = vectors_of(llama), [WORDS, (["water"], ["cat", "bird"])]
    frame = sh.sweep(llama, vectors, PROMPTS[:2], [0.5], words=pairs, max_new_tokens=0)
    for row in frame.itertuples():
        with sh.steer(llama, vectors[row.vector], 0.5):
            expected = sh.log_odds(llama, PROMPTS[row.prompt], *pairs[row.prompt])
        assert row.log_odds == pytest.approx(float(expected), abs=2e-4)


def test_continuations_equal_those_of_each_text_steered_alone(lm, vectors):
    frame = sh.sweep(lm, vectors, PROMPTS, STRENGTHS, max_new_tokens=4, batch_size=7)
    assert "log_odds" not in frame
    for row in frame.itertuples():
        with sh.steer(lm, vectors[row.vector], row.strength):
            assert row.continuation == lm.generate(PROMPTS[row.prompt], max_new_tokens=4)
    plain = frame[frame.strength == 0].groupby("prompt").continuation.nunique()
    assert (plain == 1).all()


def test_seeds_words_and_texts_in_one_call(llama):
    vectors = vectors_of(llama)
    how = dict(words=WORDS, max_new_tokens=5, temperature=1.0, seeds=(3, 4), batch_size=4)
    frame = sh.sweep(llama, vectors, PROMPTS, STRENGTHS, **how)
    assert len(frame) == 4 * 3 * 5 * 2
    assert frame.groupby(["vector", "strength", "prompt"]).log_odds.nunique().eq(1).all()
    assert frame.groupby(["vector", "strength", "prompt"]).continuation.nunique().gt(1).mean() > 0.9
    pd.testing.assert_frame_equal(frame, sh.sweep(llama, vectors, PROMPTS, STRENGTHS, **how))


def test_what_was_finished_is_not_done_again(llama, tmp_path, monkeypatch):
    vectors, file = vectors_of(llama), tmp_path / "deep" / "sweep.jsonl"
    how = dict(words=WORDS, max_new_tokens=3, batch_size=4, keep=file)
    whole = sh.sweep(llama, vectors, PROMPTS, STRENGTHS, **(how | {"keep": None}))
    started = []

    def stops_after(limit):
        def generate(self, texts, **settings):
            if len(started) == limit:
                raise KeyboardInterrupt
            started.append(texts)
            return plain(self, texts, **settings)

        return generate

    plain = sh.LanguageModel.generate
    monkeypatch.setattr(sh.LanguageModel, "generate", stops_after(3))
    with pytest.raises(KeyboardInterrupt):
        sh.sweep(llama, vectors, PROMPTS, STRENGTHS, **how)
    with file.open("a", encoding="utf-8") as half:
        half.write('{"part": "text layer 2 0 2", "rows": [{"vec')  # killed while it wrote
    monkeypatch.setattr(sh.LanguageModel, "generate", stops_after(99))
    resumed = sh.sweep(llama, vectors, PROMPTS, STRENGTHS, **how)
    pd.testing.assert_frame_equal(resumed, whole)
    assert len(started) == 4 * 4  # four vectors of four batches each, none twice
    pd.testing.assert_frame_equal(sh.sweep(llama, vectors, PROMPTS, STRENGTHS, **how), whole)
    assert len(started) == 4 * 4
    assert all(json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())
    with pytest.raises(ValueError, match=r"sweep\.jsonl holds another sweep than this one"):
        sh.sweep(llama, vectors, PROMPTS, [0.1], **how)


def test_a_file_that_was_cut_at_once_is_begun_again(llama, tmp_path):
    file = tmp_path / "sweep.jsonl"
    file.write_text('{"key": "12', encoding="utf-8")
    args = (llama, vectors_of(llama), PROMPTS[:2], [0.1])
    first = sh.sweep(*args, words=WORDS, max_new_tokens=0, keep=file)
    pd.testing.assert_frame_equal(sh.sweep(*args, words=WORDS, max_new_tokens=0, keep=file), first)


def test_the_blocks_below_run_once_a_batch_and_layer(llama, monkeypatch):
    runs = []
    block = llama.blocks[1]
    handle = block.mlp.register_forward_hook(lambda *_: runs.append(1))
    vectors = {str(seed): sh.random_vector(vectors_of(llama)["layer 4"], seed) for seed in range(5)}
    runs.clear()
    sh.sweep(llama, vectors, PROMPTS, STRENGTHS, words=WORDS, max_new_tokens=0)
    handle.remove()
    assert len(runs) == 1


def test_bad_input_is_named(llama, untyped):
    vectors, sweep = vectors_of(llama), untyped(sh.sweep)
    with pytest.raises(ValueError, match="vectors is"):
        sweep(llama, {}, PROMPTS, STRENGTHS)
    with pytest.raises(ValueError, match="prompts is 'The dog': give a list"):
        sweep(llama, vectors, "The dog", STRENGTHS)
    with pytest.raises(ValueError, match="one of them twice"):
        sweep(llama, vectors, PROMPTS, [0.1, 0.1])
    with pytest.raises(ValueError, match="max_new_tokens is 0: give 1 or more, or 0 together with words"):
        sweep(llama, vectors, PROMPTS, STRENGTHS, max_new_tokens=0)
    with pytest.raises(ValueError, match="2 pairs of words for 5 prompts"):
        sweep(llama, vectors, PROMPTS, STRENGTHS, words=[WORDS, WORDS])
    with pytest.raises(ValueError, match="strength is nan"):
        sweep(llama, vectors, PROMPTS, [0.1, float("nan")])
    with pytest.raises(ValueError, match="text 1 is empty"):
        sweep(llama, vectors, ["a", ""], STRENGTHS)
