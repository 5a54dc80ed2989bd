"""The embedded models that see and hear: their parts against the bare work, their controls, and what they refuse."""

import numpy as np
import pytest
import torch
from PIL import Image

import semhub_utils as sh
from semhub_utils import sound_encoder, stitched
from semhub_utils.data import packages
from semhub_utils.data.images import pictures
from semhub_utils.data.picture_files import open_picture
from semhub_utils.data.sounds import speak


@pytest.fixture(scope="module")
def drawn():
    frame = pictures()
    return [frame.loc[frame.concept == concept, "file"].item() for concept in ("dog", "banana", "bus")]


@pytest.fixture(scope="module")
def seeing(embedded_lm):
    return stitched.stitch(embedded_lm)


def test_the_features_are_the_networks_pooled_to_four_by_four(drawn):
    encoder = stitched.PictureEncoder()
    found = encoder(drawn, batch_size=2)
    assert found.shape == (3, 16, 1280)
    pixels = (torch.tensor(np.array(open_picture(drawn[1], 224)), dtype=torch.float32).permute(2, 0, 1) - 127) / 128
    with torch.no_grad():
        features = encoder.net.extract_features(pixels[None])[0]
    # Seven rows into four: rows 0-1, 1-3, 3-5 and 5-6, each overlapping its neighbour where seven is no multiple.
    for number, (rows, columns) in {0: ((0, 2), (0, 2)), 6: ((1, 4), (3, 6)), 15: ((5, 7), (5, 7))}.items():
        patch = features[:, rows[0] : rows[1], columns[0] : columns[1]].double().mean((1, 2))
        np.testing.assert_allclose(found[1, number], patch, atol=1e-4)


def test_the_network_names_a_photograph_as_imagenet_does():
    cat = pictures(["photographs"]).file[0]
    features = stitched.PictureEncoder()([cat])
    with torch.no_grad():
        share = stitched._network()._fc(features.mean(1)).softmax(-1)[0]
    assert share[281:286].sum() > 0.5  # the five cats of ImageNet


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, all_ in stitched.PROJECTORS.items() for name in all_]
)
def test_a_projector_is_one_linear_map_to_the_length_of_a_word(kind, name, embedded_lm):
    through = stitched.projector(name, kind)
    features = torch.randn(5, 3, {"image": stitched.CHANNELS, "audio": sound_encoder.CHANNELS}[kind])
    soft = through(features)
    linear = features.double() @ through.weight.double().T + through.bias.double()
    expected = through.length * linear / linear.norm(dim=-1, keepdim=True)
    np.testing.assert_allclose(soft.detach(), expected.detach(), atol=1e-3)
    with torch.no_grad():
        words = embedded_lm.model.get_input_embeddings()(torch.arange(1000, 50000, 50)).norm(dim=-1)
    assert through.length == pytest.approx(float(words.median()), rel=1e-3)


def test_the_stitched_model_is_the_encoder_the_map_and_the_language_model(seeing, embedded_lm, drawn):
    lm = seeing
    with torch.no_grad():
        soft = stitched.projector()(stitched.PictureEncoder()([drawn[0]]))[0]
        embed = embedded_lm.model.get_input_embeddings()
        start, rest = lm.cut([""])[0], lm.cut([" A picture of a"], special=False)[0]
        inputs = torch.cat([embed(torch.tensor(start)), soft, embed(torch.tensor(rest))])[None]
        own = embedded_lm.model(inputs_embeds=inputs, use_cache=False).logits
    example = sh.Example(" A picture of a", drawn[0])
    torch.testing.assert_close(lm([example]).logits, own, atol=2e-3, rtol=1e-4)
    frame = sh.logit_lens(lm, example, {"dog": " dog"}, positions="image", progress=False)
    assert frame.position.unique().tolist() == list(range(1, 17))
    assert lm.spec.takes == ("text", "image")


def test_the_model_that_hears_is_the_encoder_the_map_and_the_language_model(embedded_lm):
    lm = stitched.stitch(embedded_lm, kind="audio")
    word = speak("dog", "en", "f5")
    with torch.no_grad():
        soft = stitched.projector(kind="audio")(sound_encoder.SoundEncoder()([word]))[0]
        embed = embedded_lm.model.get_input_embeddings()
        start, rest = lm.cut([""])[0], lm.cut([":"], special=False)[0]
        inputs = torch.cat([embed(torch.tensor(start)), soft, embed(torch.tensor(rest))])[None]
        own = embedded_lm.model(inputs_embeds=inputs, use_cache=False).logits
    example = sh.Example(":", audio=word)
    torch.testing.assert_close(lm([example]).logits, own, atol=2e-3, rtol=1e-4)
    frame = sh.logit_lens(lm, example, {"dog": " dog"}, positions="audio", progress=False)
    assert frame.position.unique().tolist() == list(range(1, 9))
    assert lm.spec.takes == ("text", "audio")


def test_text_alone_is_read_as_by_the_language_model(seeing, embedded_lm):
    text = "The dog and the cat see"
    assert torch.equal(seeing([text]).logits, embedded_lm([text]).logits)
    assert seeing.model is embedded_lm.model


def test_the_registry_knows_both():
    hearing = sh.load("gemma-3-270m+whisper-base", takes="audio")
    assert str(hearing).startswith("gemma-3-270m+whisper-base: 18 blocks")
    assert isinstance(hearing.generate(sh.Example(":", audio=speak("dog")), 2), str)
    lm = sh.load("gemma-3-270m+efficientnet")
    assert str(lm).startswith("gemma-3-270m+efficientnet: 18 blocks")
    assert lm.soft is not None
    assert isinstance(lm.generate(sh.Example(" A picture of a", Image.new("RGB", (50, 30), "red")), 2), str)


def test_other_weights_are_refused(monkeypatch):
    monkeypatch.setattr(stitched, "SHA256", "0" * 64)
    with pytest.raises(ValueError, match=r"have SHA-256 5793\w+, expected 0000.* reinstall"):
        stitched._weights_file()


def test_a_missing_package_is_named(monkeypatch):
    stitched._network.cache_clear()
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install efficientnet-lite-pytorch"):
        stitched.PictureEncoder()
    monkeypatch.undo()
    stitched._network.cache_clear()


def test_what_is_wrong_is_said(embedded_lm, llama, untyped):
    with pytest.raises(
        ValueError, match="projector is 'best': there are trained, shuffled, untrained, trial, trial-from-words"
    ):
        stitched.projector("best")
    with pytest.raises(ValueError, match="projector is 'trial': there are trained, shuffled, untrained, regression"):
        stitched.projector("trial", "audio")
    with pytest.raises(ValueError, match="kind is 'smell': there are image, audio"):
        stitched.stitch(embedded_lm, kind="smell")
    with pytest.raises(ValueError, match="trained for a model of width 640, and tiny-llama has 32"):
        stitched.stitch(llama)
    with pytest.raises(ValueError, match="the list of pictures is empty"):
        stitched.PictureEncoder()([])


def test_soft_tokens_hold_no_gradient(seeing, drawn):
    seeing.soft.ids(drawn)
    assert not any(row.requires_grad for row in seeing.soft._table)
