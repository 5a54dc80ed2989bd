"""Every family that the book names, loaded as a reader loads it, does what transformers does and no more.

The same five questions of each: is the last row of the lens what the model says, are recorded states its own, does an
edit reach what was chosen and nothing else, do the tokens of a picture or a sound stand where they are said to, and is
a continuation with the cache that of a loop without one.
"""

import numpy as np
import pytest
import torch
from PIL import Image

import conftest
import seeing
import semhub_utils as sh
import test_baichuan

TEXTS = ["The dog and the cat see a bird in the water.", "法国的首都是", "El perro"]
FAMILIES = {
    "text": ["llama", "gemma2", "gemma3", "qwen2", "qwen3", "gpt2", "gpt_neox", "bloom", "baichuan"],
    "image": ["llava", "chameleon", "idefics3", "smolvlm"],
    "audio": ["qwen2_audio"],
}
KIND = {family: kind for kind, families in FAMILIES.items() for family in families}
SEEING = {**seeing.MAKERS, **seeing.HEARING, "smolvlm": seeing.tiny_smolvlm}
MARKED = {"image": "<image> a dog", "audio": "<audio> a dog"}


@pytest.fixture(scope="module", params=KIND)
def loaded(request, tmp_path_factory):
    """The model out of a folder, and what its processor, if it has one, makes of an input of its kind."""
    family, folder = request.param, tmp_path_factory.mktemp("exact") / request.param
    if family == "baichuan":  # in its own format; the mapping makes a Llama of it
        test_baichuan.checkpoint(folder, test_baichuan.trained())
        return sh.load(str(folder), device="cpu"), None
    if KIND[family] == "text":
        made = conftest.build(family)
        made.model.save_pretrained(folder)
        made.tokenizer.save_pretrained(folder)
        return sh.load(str(folder), device="cpu"), None
    model, processor = SEEING[family](conftest.make_tokenizer)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    lm = sh.load(str(folder), device="cpu", takes=KIND[family])
    return lm, processor


def picture():
    shades = np.random.default_rng(3).integers(0, 255, (20, 20, 3), dtype=np.uint8)
    return Image.fromarray(shades)


def sound():
    return np.random.default_rng(3).normal(0, 0.1, 9000).astype(np.float32)


def inputs(loaded):
    """An input as ours takes it, what transformers is given for the same, and where its picture or sound stands."""
    lm, processor = loaded
    kind = lm.spec.takes[-1]
    if kind == "text":
        return TEXTS[0], {"input_ids": torch.tensor(lm.token_ids(TEXTS[0]))}, []
    how = {"return_for_text_completion": True} if lm.model.config.model_type == "chameleon" else {}
    if kind == "image":
        example = sh.Example(MARKED[kind], image=picture())
        made = processor(images=[picture()], text=MARKED[kind], return_tensors="pt", **how)
        marker = lm.tokenizer.convert_tokens_to_ids("<image>")
    else:
        example = sh.Example(MARKED[kind], audio=sound())
        text = f"{processor.audio_bos_token}{processor.audio_token}{processor.audio_eos_token} a dog"
        made = processor(text=text, audio=[sound()], sampling_rate=16000, return_tensors="pt")
        marker = processor.audio_token_id
    made = {name: value for name, value in made.items() if name != "token_type_ids"}
    return example, made, (made["input_ids"][0] == marker).nonzero()[:, 0].tolist()


def drawn(lm):
    """A push in a direction of its own: along the ones a layer norm would take it out again."""
    return 5 * torch.randn(lm.d_model, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def own(lm, made):
    return lm.model(**made, output_hidden_states=True, use_cache=False)


def test_the_last_row_of_the_lens_is_what_the_model_says_wherever_that_is_not_masked(loaded):
    lm, (example, made, _) = loaded[0], inputs(loaded)
    logits = own(lm, made).logits[0].double()
    masked = logits <= torch.finfo(torch.float32).min / 2
    ids = [int(i) for i in (~masked[-1]).nonzero()[:: max(1, logits.shape[1] // 7), 0]]
    frame = sh.logit_lens(lm, [example], {str(i): i for i in ids}, positions="all", progress=False)
    last = frame[frame.layer == lm.n_layers]
    assert len(last) == len(ids) * len(logits)
    scale = float(logits[~masked].abs().max())
    # The model's softmax leaves masked tokens out and the lens does not know of the mask: the difference of two counts.
    said = torch.tensor(
        last.pivot(index="position", columns="target", values="logprob")[[str(i) for i in ids]].to_numpy()
    )
    expected = logits[:, ids]
    difference = (said - said[:, :1]) - (expected - expected[:, :1])
    assert float(difference.abs().max()) < 1e-4 * scale
    if not masked.any():
        assert float((said - logits.log_softmax(-1)[:, ids]).abs().max()) < 1e-4 * scale


def test_recorded_states_are_those_of_transformers(loaded):
    lm, (example, made, _) = loaded[0], inputs(loaded)
    expected = own(lm, made).hidden_states
    with sh.record(lm) as states:
        lm([example])
    for layer in range(lm.n_layers):
        torch.testing.assert_close(states[layer], expected[layer], atol=2e-5, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(lm.final_norm(states[lm.n_layers]), expected[-1], atol=5e-5, rtol=1e-5)


@pytest.mark.parametrize("positions", [0, -2, "kind"])
def test_an_edit_reaches_its_layer_and_its_positions_and_what_comes_after(loaded, positions):
    lm, (example, _, places) = loaded[0], inputs(loaded)
    count = len(lm.token_ids([example])[0])
    kind = lm.spec.takes[-1]
    chosen = [p % count for p in [positions]] if positions != "kind" else places or list(range(count))
    with sh.record(lm) as before:
        lm([example])
    layer, push = 2, drawn(lm)
    with (
        sh.edit(lm, layer, lambda state: state + push, kind if positions == "kind" else positions),
        sh.record(lm) as after,
    ):
        lm([example])
    for row in range(layer):
        assert torch.equal(after[row], before[row])
    difference = (after[layer] - before[layer])[0]
    torch.testing.assert_close(difference[chosen], push.expand(len(chosen), -1), atol=1e-5, rtol=0)
    others = [p for p in range(count) if p not in chosen]
    assert torch.equal(after[layer][0, others], before[layer][0, others])
    # What comes before the first of them cannot know, and the last token does.
    if earlier := list(range(min(chosen))):
        torch.testing.assert_close(after[lm.n_layers][0, earlier], before[lm.n_layers][0, earlier], atol=1e-5, rtol=0)
    assert not torch.allclose(after[lm.n_layers][0, -1], before[lm.n_layers][0, -1], atol=1e-3)


def test_the_tokens_of_a_picture_or_a_sound_stand_where_transformers_puts_them(loaded):
    lm, (example, made, places) = loaded[0], inputs(loaded)
    ids = lm.token_ids([example])[0]
    assert len(ids) == made["input_ids"].shape[1]
    assert [i for i, kind in enumerate(lm.kinds(ids)) if kind] == places
    assert bool(places) == (lm.spec.takes != ("text",))
    if places:
        states = sh.hidden_states(lm, [example], position=lm.spec.takes[-1], progress=False)[0]
        expected = own(lm, made).hidden_states
        for layer in range(lm.n_layers):
            torch.testing.assert_close(states[layer], expected[layer][0, places].mean(0), atol=2e-5, rtol=0)


def test_a_continuation_with_the_cache_is_that_of_a_loop_without_one(loaded):
    lm, (example, made, _) = loaded[0], inputs(loaded)
    whole = []
    for strength in (0.0, 1.0):
        with sh.edit(lm, 2, lambda state, strength=strength: state + strength * drawn(lm)):
            said = lm.generate([example], max_new_tokens=6)[0]
            new: list[int] = []
            for _ in range(6):
                ids = torch.cat([made["input_ids"], torch.tensor([new], dtype=torch.long)], 1)
                grown = {**made, "input_ids": ids}
                if "attention_mask" in made:
                    grown["attention_mask"] = torch.ones_like(ids)
                with torch.no_grad():
                    new.append(int(lm.model(**grown, use_cache=False).logits[0, -1].argmax()))
                if new[-1] in lm.tokenizer.all_special_ids:
                    break  # a model that says "a picture stands here" without one cannot be asked again in this way
        assert said.startswith(lm.tokenizer.decode(new, skip_special_tokens=True)), strength
        if len(new) == 6:
            assert said == lm.tokenizer.decode(new, skip_special_tokens=True)
            whole.append(strength)
    assert whole, "no continuation was compared to its end"


def test_texts_of_any_length_in_one_batch_are_as_each_alone(loaded):
    lm = loaded[0]
    texts = [*TEXTS, inputs(loaded)[0]]
    together = sh.hidden_states(lm, texts, progress=False)
    alone = torch.cat([sh.hidden_states(lm, [text], progress=False) for text in texts])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
