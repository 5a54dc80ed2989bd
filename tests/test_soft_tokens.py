"""Pictures and sounds among the tokens: against transformers' own forward, and against plain vectors put in."""

import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from PIL import Image

import semhub_utils as sh
from seeing import HEARING, MAKERS
from semhub_utils import registry
from semhub_utils.soft_tokens import SoftTokens, digest, hub_pictures, hub_sounds

SOFT = 3
TEXT = " a dog"


def picture(seed=0, size=12):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8))


def sound(seed=0, samples=8000):
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


def vectors(one, d_model):
    """Stands in for an encoder: vectors that follow from the picture alone."""
    generator = torch.Generator().manual_seed(int(digest(one)[:8], 16))
    return torch.randn(SOFT, d_model, generator=generator)


def with_eyes(lm):
    """Eyes and ears, so that a test may show that the two are told apart."""
    model = copy.deepcopy(lm.model)

    def encode(given):
        return [([None] * SOFT, vectors(one, lm.d_model)) for one in given]

    soft = SoftTokens(model.get_input_embeddings(), {"image": encode, "audio": encode})
    spec = replace(lm.spec, takes=("text", "image", "audio"))
    return sh.LanguageModel(model, copy.deepcopy(lm.tokenizer), spec, soft)


@pytest.fixture(scope="module")
def seeing(request):
    return with_eyes(request.getfixturevalue("llama"))


@pytest.fixture
def any_seeing(lm):
    return with_eyes(lm)


def by_hand(lm, parts):
    """The states of one input whose embeddings are put together here: token ids, or vectors as they are."""
    embed = lm.model.get_input_embeddings()
    with torch.no_grad():
        rows = [embed(torch.tensor([part]))[0] if isinstance(part, list) else part for part in parts]
        out = lm.model(inputs_embeds=torch.cat(rows)[None], output_hidden_states=True, use_cache=False)
    return out


def test_soft_tokens_stand_where_their_vectors_would(any_seeing):
    lm, one = any_seeing, picture()
    start, rest = lm.cut([""]), lm.cut([TEXT], special=False)
    out = by_hand(lm, [*([start[0]] if start[0] else []), vectors(one, lm.d_model), rest[0]])
    found = lm([sh.Example(TEXT, one)])
    torch.testing.assert_close(found.logits, out.logits, atol=2e-5, rtol=0)
    states = sh.hidden_states(lm, [sh.Example(TEXT, one)], position="image")
    image = slice(len(start[0]), len(start[0]) + SOFT)
    for layer in range(lm.n_layers):
        expected = out.hidden_states[layer][0, image].mean(0)
        torch.testing.assert_close(states[0, layer], expected, atol=2e-5, rtol=0)


def test_pictures_and_texts_in_one_batch_are_as_each_alone(any_seeing):
    lm = any_seeing
    inputs = [
        sh.Example(TEXT, picture(1)),
        "The dog and the cat see a bird",
        sh.Example("The cat <image> dog", picture(2)),
    ]
    together = sh.hidden_states(lm, inputs, progress=False)
    alone = torch.cat([sh.hidden_states(lm, [one], progress=False) for one in inputs])
    torch.testing.assert_close(together, alone, atol=5e-5, rtol=1e-5)
    for side in ("left", "right"):
        with torch.no_grad():
            logits = lm.model(**lm.pad(lm.token_ids(inputs), side=side), use_cache=False).logits
        at = -1 if side == "left" else len(lm.token_ids(inputs)[0]) - 1
        expected = lm([inputs[0]]).logits[0, -1]
        torch.testing.assert_close(logits[0, at], expected, atol=5e-5, rtol=1e-5)


def test_the_picture_stands_first_or_where_the_text_says(seeing):
    one = picture()
    soft = seeing.soft.ids([one])[0]
    bos = [seeing.tokenizer.bos_token_id]
    assert seeing.token_ids([sh.Example(image=one)]) == [bos + soft]
    assert seeing.token_ids([sh.Example("The dog", one)]) == [bos + soft + seeing.cut(["The dog"], special=False)[0]]
    inside = seeing.token_ids([sh.Example("The dog<image> sees", one)])[0]
    assert inside == seeing.cut(["The dog"])[0] + soft + seeing.cut([" sees"], special=False)[0]
    assert seeing.token_ids([sh.Example("The dog")]) == seeing.token_ids(["The dog"])
    assert min(soft) >= seeing.model.get_input_embeddings().weight.shape[0]


def test_the_lens_over_the_picture_is_the_head_on_its_states(seeing):
    inputs = [sh.Example(TEXT, picture(3)), sh.Example("The cat <image> dog", picture(4))]
    frame = sh.logit_lens(seeing, inputs, {"dog": 5}, positions="image", progress=False)
    for text, one in enumerate(inputs):
        ids = seeing.token_ids([one])[0]
        first = ids.index(seeing.soft.ids([one.image])[0][0])
        assert sorted(frame[frame.text == text].position.unique()) == list(range(first, first + SOFT))
        with sh.record(seeing) as states:
            logits = seeing([one]).logits
        for layer in range(seeing.n_layers + 1):
            with torch.no_grad():
                row = seeing.head(seeing.final_norm(states[layer][0, first])).log_softmax(-1)
            got = frame.query("text == @text and layer == @layer and position == @first").logprob.item()
            assert got == pytest.approx(row[5].item(), abs=1e-4)
        assert got == pytest.approx(logits[0, first].log_softmax(-1)[5].item(), abs=1e-4)


@pytest.mark.parametrize("positions", ["image", "audio", "text"])
def test_an_edit_reaches_the_tokens_of_one_kind_only(seeing, positions):
    pictured = [sh.Example(TEXT, picture(5)), sh.Example("The cat and the <image> dog", picture(6))]
    heard = [sh.Example("The <audio> dog", audio=sound(5)), sh.Example(TEXT, audio=sound(6))]
    inputs = {"image": pictured, "audio": heard, "text": pictured + heard}[positions]
    with sh.record(seeing, 1) as before:
        seeing(inputs)
    with sh.edit(seeing, 1, lambda h: h + 1, positions), sh.record(seeing, 1) as after:
        seeing(inputs)
    encoded = seeing.encode(inputs)
    soft = encoded["input_ids"] >= seeing.soft.first
    real = encoded["attention_mask"] > 0
    chosen = real & ~soft if positions == "text" else soft
    moved = (after[1] - before[1]).abs().amax(-1) > 0.5
    assert torch.equal(moved & real, chosen)
    assert soft.sum(1).tolist() == [SOFT] * len(inputs)


def test_pictures_sounds_and_texts_in_one_batch_are_as_each_alone(seeing):
    inputs = [sh.Example(TEXT, picture(1)), "The dog", sh.Example("The cat <audio> dog", audio=sound(2))]
    together = sh.hidden_states(seeing, inputs, progress=False)
    alone = torch.cat([sh.hidden_states(seeing, [one], progress=False) for one in inputs])
    torch.testing.assert_close(together, alone, atol=5e-5, rtol=1e-5)
    kinds = [seeing.kinds(ids) for ids in seeing.token_ids(inputs)]
    assert [sorted(set(one)) for one in kinds] == [[0, 1], [0], [0, 2]]
    frame = sh.logit_lens(seeing, inputs[2:], {"dog": 5}, positions="audio", progress=False)
    assert frame.position.nunique() == SOFT
    mean = sh.hidden_states(seeing, inputs[2:], position="audio", progress=False)
    with sh.record(seeing) as states:
        seeing(inputs[2:])
    places = [i for i, kind in enumerate(kinds[2]) if kind == 2]
    for layer in range(seeing.n_layers + 1):
        torch.testing.assert_close(mean[0, layer], states[layer][0, places].mean(0), atol=2e-5, rtol=0)


def test_examples_are_equal_when_they_bring_the_same():
    same = sh.Example("a", audio=sound(1))
    assert same == sh.Example("a", audio=sound(1).copy())
    assert hash(same) == hash(sh.Example("a", audio=sound(1).copy()))
    assert same.key == sh.Example("a", audio=sound(1).copy()).key
    others = [
        sh.Example("a", audio=sound(2)),
        sh.Example("b", audio=sound(1)),
        sh.Example("a"),
        sh.Example("a", "b.png"),
    ]
    for other in others:
        assert same != other
    assert sh.Example("a", picture(1)) == sh.Example("a", picture(1))
    assert sh.Example("a", "b.png") != sh.Example("a", audio="b.png")
    assert len({one.key for one in [same, *others[:3]]}) == 4


def test_generation_with_the_cache_sees_the_picture_and_equals_generation_without(seeing):
    inputs = [sh.Example(TEXT, picture(7)), sh.Example("The cat and the bird", picture(8)), "dog"]
    vector = sh.random_vector(sh.steering_vector(seeing, ["the dog sees"], ["the cat is"], 2), 0)
    with sh.steer(seeing, vector, 0.5, "all"):
        found = seeing.generate(inputs, max_new_tokens=6)
    ids = seeing.token_ids(inputs)
    for text, one in enumerate(ids):
        now = list(one)
        for _ in range(6):
            with torch.no_grad(), sh.steer(seeing, vector, 0.5, "all"):
                now.append(int(seeing.model(**seeing.pad([now]), use_cache=False).logits[0, -1].argmax()))
        assert found[text] == seeing.tokenizer.decode(now[len(one) :], skip_special_tokens=True)
    assert isinstance(seeing.generate(inputs[0], max_new_tokens=2), str)


def test_steering_sweeps_and_measures_take_pictures(seeing, tmp_path):
    inputs = [sh.Example(TEXT, picture(9)), sh.Example(" the cat", picture(10))]
    vector = sh.steering_vector(seeing, inputs[:1], inputs[1:], 2)
    words = (["dog"], ["cat"])
    frame = sh.sweep(
        seeing, [vector], inputs, [0.0, 0.3], words, 3, positions="image", keep=tmp_path / "kept", progress=False
    )
    plain = sh.log_odds(seeing, inputs, *words)
    np.testing.assert_allclose(frame[frame.strength == 0].log_odds, plain, atol=1e-5)
    with sh.steer(seeing, vector, 0.3, "image"):
        steered = sh.log_odds(seeing, inputs, *words)
    np.testing.assert_allclose(frame[frame.strength == 0.3].log_odds, steered, atol=1e-5)
    assert (steered - plain).abs().min() > 1e-4
    with pytest.raises(ValueError, match="another sweep"):
        sh.sweep(seeing, [vector], inputs[:1], [0.0], words, 3, keep=tmp_path / "kept", progress=False)
    loss = sh.log_loss(seeing, inputs, [" dog", " bird"], progress=False)
    ids = seeing.token_ids([sh.Example(TEXT + " dog", inputs[0].image)])[0]
    begins = len(seeing.token_ids([inputs[0]])[0])
    logits = seeing([sh.Example(TEXT + " dog", inputs[0].image)]).logits[0].log_softmax(-1)
    expected = -np.mean([logits[i - 1, ids[i]].item() for i in range(begins, len(ids))])
    assert loss[0].item() == pytest.approx(expected, abs=1e-4)


def test_a_picture_is_encoded_once_and_known_by_what_it_shows(llama, tmp_path):
    asked = []
    model = copy.deepcopy(llama.model)

    def encode(pictures):
        asked.append(len(pictures))
        return [([7, None, None, None, 8], vectors(one, llama.d_model)) for one in pictures]

    soft = SoftTokens(model.get_input_embeddings(), {"image": encode})
    picture(1).save(tmp_path / "one.png")
    first = soft.ids([picture(0), picture(0), tmp_path / "one.png"])
    assert first[0] == first[1] != first[2]
    assert soft.ids([picture(0)]) == first[:1]
    assert asked == [2]
    assert first[0][0] == 7
    assert first[0][-1] == 8
    picture(2).save(tmp_path / "one.png")
    assert soft.ids([tmp_path / "one.png"]) != first[2:]


def test_two_pairs_of_eyes_on_one_model_do_not_see_each_others_pictures(llama):
    first = with_eyes(llama)
    other = sh.LanguageModel(
        first.model,
        first.tokenizer,
        first.spec,
        SoftTokens(
            first.model.get_input_embeddings(),
            {"image": lambda all_: [([None], torch.ones(1, first.d_model))] * len(all_)},
        ),
    )
    example = sh.Example(TEXT, picture(0))
    alone = with_eyes(llama)([example]).logits
    other([example])
    assert torch.equal(first([example]).logits, alone)
    assert not set(first.token_ids([example])[0]) & set(other.soft.ids([example.image])[0])


def test_what_is_wrong_with_an_input_is_said(llama, seeing, tmp_path):
    with pytest.raises(ValueError, match=r"text 1 has a picture, and tiny-llama takes text: load a model for it"):
        llama.token_ids(["dog", sh.Example(image=picture())])
    with pytest.raises(ValueError, match="text 0 is empty"):
        seeing.token_ids([sh.Example()])
    with pytest.raises(ValueError, match="<image> 2 times"):
        sh.Example("<image> and <image>", picture())
    with pytest.raises(ValueError, match="where the picture stands, <image>, and there is none"):
        sh.Example("The <image> dog")
    with pytest.raises(ValueError, match="has a picture and a sound: it has one"):
        sh.Example(image=picture(), audio=sound())
    with pytest.raises(ValueError, match="where the sound stands, <audio>, and there is none: give `audio`"):
        sh.Example("The <audio> dog", picture())
    with pytest.raises(ValueError, match=r"text 0 has a sound, and tiny-llama takes text: .*takes='audio'"):
        llama.token_ids([sh.Example(audio=sound())])
    with pytest.raises(ValueError, match="positions is 'audio', and text 1 has no sound: give Example"):
        sh.hidden_states(seeing, [sh.Example(audio=sound()), sh.Example(image=picture())], position="audio")
    with pytest.raises(FileNotFoundError, match=r"none\.png is not there"):
        seeing.token_ids([sh.Example(image=tmp_path / "none.png")])
    for call in (
        lambda: sh.logit_lens(seeing, ["dog"], {"a": 5}, positions="image"),
        lambda: sh.hidden_states(llama, ["dog"], position="image"),
    ):
        with pytest.raises(ValueError, match="positions is 'image', and text 0 has no picture"):
            call()
    # Named by its place in the list, not in a batch of texts of like length.
    with pytest.raises(ValueError, match="text 2 has no picture"):
        sh.hidden_states(seeing, [sh.Example(TEXT, picture(1)), sh.Example(TEXT, picture()), "dog"], position="image")
    with pytest.raises(ValueError, match="text 0 has no picture"), sh.edit(seeing, 1, lambda h: h, "image"):
        seeing(["dog"])
    with pytest.raises(ValueError, match="has no row in the unembedding"):
        sh.steering_vector(seeing, [sh.Example(TEXT, picture())], ["cat"], 1, method="unembedding")


# How many soft tokens a picture of 20 by 20 becomes; of Idefics3, four for each of four tiles and for the whole.
FAMILIES = {"llava": 4, "chameleon": 16, "idefics3": 20}


@pytest.mark.parametrize("family", FAMILIES)
def test_an_image_model_of_the_hub_gives_what_transformers_gives(tokenizer_of, family):
    count = FAMILIES[family]
    model, processor = MAKERS[family](tokenizer_of)
    how = registry.FAMILIES[family].told
    soft = SoftTokens(model.get_input_embeddings(), {"image": hub_pictures(model, processor, how)})
    lm = sh.LanguageModel(model, processor.tokenizer, sh.ModelSpec("tiny-llava", "made here"), soft)
    one = picture(3, 20)
    made = processor(images=[one], text="<image> a dog", return_tensors="pt", **how)
    with torch.no_grad():
        own = model(**made, output_hidden_states=True)
    example = sh.Example("<image> a dog", one)
    assert len(lm.token_ids([example])[0]) == made["input_ids"].shape[1]
    torch.testing.assert_close(lm([example]).logits, own.logits, atol=5e-5, rtol=1e-5)
    states = sh.hidden_states(lm, [example], position="image", progress=False)
    places = (made["input_ids"][0] == processor.tokenizer.convert_tokens_to_ids("<image>")).nonzero()[:, 0]
    assert len(places) == count
    for layer in range(lm.n_layers):
        torch.testing.assert_close(states[0, layer], own.hidden_states[layer][0, places].mean(0), atol=2e-5, rtol=0)
    made.pop("token_type_ids", None)
    new = model.generate(**made, max_new_tokens=5, do_sample=False)[0, made["input_ids"].shape[1] :]
    assert lm.generate([example], max_new_tokens=5) == [processor.tokenizer.decode(new, skip_special_tokens=True)]
    frame = sh.logit_lens(lm, [example], {"x": 9}, positions="image", progress=False)
    assert frame.position.unique().tolist() == places.tolist()


def test_an_image_model_is_loaded_from_a_folder(tokenizer_of, tmp_path):
    model, processor = MAKERS["llava"](tokenizer_of)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(tmp_path)
    lm = sh.load(str(tmp_path))
    assert lm.spec.takes == ("text", "image")
    one = picture(3, 20)
    made = processor(images=[one], text="<image> a dog", return_tensors="pt")
    with torch.no_grad():
        own = model(**made).logits
    torch.testing.assert_close(lm([sh.Example("<image> a dog", one)]).logits, own, atol=2e-5, rtol=0)


def test_an_audio_model_of_the_hub_gives_what_transformers_gives(tokenizer_of):
    model, processor = HEARING["qwen2_audio"](tokenizer_of)
    soft = SoftTokens(model.get_input_embeddings(), {"audio": hub_sounds(model, processor)})
    lm = sh.LanguageModel(model, processor.tokenizer, sh.ModelSpec("tiny", "made", takes=("text", "audio")), soft)
    sounds = [sound(0, 9000), sound(1, 20000)]
    marked = f"{processor.audio_bos_token}{processor.audio_token}{processor.audio_eos_token} a dog"
    examples = [sh.Example("<audio> a dog", audio=one) for one in sounds]
    for one, example in zip(sounds, examples, strict=True):
        made = processor(text=marked, audio=[one], sampling_rate=16000, return_tensors="pt")
        made.pop("token_type_ids", None)
        with torch.no_grad():
            own = model(**made, output_hidden_states=True)
        assert len(lm.token_ids([example])[0]) == made["input_ids"].shape[1]
        torch.testing.assert_close(lm([example]).logits, own.logits, atol=5e-5, rtol=1e-5)
        states = sh.hidden_states(lm, [example], position="audio", progress=False)
        places = (made["input_ids"][0] == processor.audio_token_id).nonzero()[:, 0]
        columns = len(one) // 160
        assert len(places) == ((columns - 1) // 2 - 1) // 2 + 1  # a soft token for every 40 ms
        for layer in range(lm.n_layers):
            torch.testing.assert_close(states[0, layer], own.hidden_states[layer][0, places].mean(0), atol=2e-5, rtol=0)
        new = model.generate(**made, max_new_tokens=5, do_sample=False)[0, made["input_ids"].shape[1] :]
        assert lm.generate([example], max_new_tokens=5) == [processor.tokenizer.decode(new, skip_special_tokens=True)]
    together = sh.hidden_states(lm, examples, progress=False)
    torch.testing.assert_close(together[:1], sh.hidden_states(lm, examples[:1], progress=False), atol=5e-5, rtol=1e-5)


def test_an_audio_model_is_loaded_from_a_folder(tokenizer_of, tmp_path):
    model, processor = HEARING["qwen2_audio"](tokenizer_of)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    lm = sh.load(str(tmp_path), takes="audio")
    assert lm.spec.takes == ("text", "audio")
    example = sh.Example("<audio> a dog", audio=sound(0, 9000))
    soft = SoftTokens(model.get_input_embeddings(), {"audio": hub_sounds(model, processor)})
    own = sh.LanguageModel(model, processor.tokenizer, lm.spec, soft)
    torch.testing.assert_close(lm([example]).logits, own([example]).logits, atol=2e-5, rtol=0)
    with pytest.raises(ValueError, match="takes text and audio, and is to be given an image"):
        sh.load(str(tmp_path), takes="image")


def with_its_own(model, processor):
    """A model of the hub with its own encoder, as `load` puts the two together."""
    family = registry.FAMILIES[model.config.model_type]
    encoder = {"image": hub_pictures, "audio": hub_sounds}[family.kind](model, processor, family.told)
    soft = SoftTokens(model.get_input_embeddings(), {family.kind: encoder})
    spec = sh.ModelSpec("tiny", "made", takes=("text", family.kind))
    return sh.LanguageModel(model.eval(), processor.tokenizer, spec, soft)


# How much of the model has room in memory; in the first two a part of the encoder is on the disk too. Chameleon's reads
# a weight past its module, which transformers itself cannot do where that is away, so it stays.
@pytest.mark.parametrize(("name", "room"), [("llava", 0.3), ("idefics3", 0.3), ("qwen2_audio", 0.6), ("chameleon", 0)])
def test_a_model_of_the_hub_with_parts_on_the_disk_gives_what_it_gives_in_memory(name, room, tokenizer_of, tmp_path):
    model, processor = (MAKERS | HEARING)[name](tokenizer_of)
    model.save_pretrained(tmp_path)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    stays = {f"model.{part}": "cpu" for part in ("embed_tokens", "norm", "vqmodel", "rotary_emb")}
    places = stays | {"lm_head": "disk", **{f"model.layers.{k}": "disk" for k in range(3)}}
    how = {"device_map": "auto", "max_memory": {"cpu": int(size * room)}} if room else {"device_map": places}
    away = type(model).from_pretrained(tmp_path, dtype=torch.float32, offload_folder=tmp_path / "away", **how)
    whole, away = with_its_own(model, processor), with_its_own(away, processor)
    assert next(away.blocks[1].parameters()).device.type == "meta", "the trap of this test is not set"
    met = {"audio": sound(0, 9000)} if name in HEARING else {"image": picture(3, 20)}
    texts = [sh.Example(" a dog", **met), "the cat and"]
    states = sh.hidden_states(whole, texts)
    torch.testing.assert_close(sh.hidden_states(away, texts), states, atol=1e-5, rtol=1e-5)
    frames = [sh.logit_lens(one, texts[:1], {"a": 9}, next(iter(met))) for one in (whole, away)]
    pd.testing.assert_frame_equal(frames[1], frames[0], rtol=1e-5, atol=1e-5)
    edited = []
    for one in (whole, away):
        with sh.edit(one, 1, lambda state: state.flip(-1), next(iter(met))):
            edited.append((one(texts[0]).logits, one.generate(texts[0], max_new_tokens=3)))
    torch.testing.assert_close(edited[1][0], edited[0][0], atol=1e-5, rtol=1e-5)
    assert edited[1][1] == edited[0][1]
    assert not torch.allclose(edited[0][0], whole(texts[0]).logits, atol=1e-3)
