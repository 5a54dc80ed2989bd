"""Sounds of every kind become one channel at 16 kHz, whatever their length; what is no sound is named."""

import struct
import tracemalloc

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from semhub_utils.data import sound_files
from semhub_utils.data.sound_files import RATE, open_sound


def tone(rate=RATE, seconds=1.0, pitch=440.0, height=0.5):
    return (height * np.sin(2 * np.pi * pitch * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


def same_tone(found, seconds, pitch=440.0, height=0.5):
    """Away from both ends, where a filter has nothing on one side."""
    expected = tone(RATE, seconds, pitch, height)
    assert abs(len(found) - len(expected)) <= 1
    middle = slice(400, min(len(found), len(expected)) - 400)
    np.testing.assert_allclose(found[middle], expected[middle], atol=2e-3)


@settings(max_examples=25, deadline=None)
@given(
    rate=st.sampled_from([4_000, 8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000]),
    channels=st.integers(1, 6),
    seconds=st.floats(0.1, 2),
)
def test_any_rate_and_number_of_channels_is_the_tone_at_16_khz(rate, channels, seconds):
    one = tone(rate, seconds)
    # Channels of different loudness: their mean is what is heard.
    many = np.stack([one * weight for weight in np.linspace(0.5, 1.5, channels)], axis=1) if channels > 1 else one
    same_tone(open_sound(many, rate), len(one) / rate)


@pytest.mark.parametrize("form", ["wav", "flac", "ogg", "mp3", "aiff", "au"])
def test_a_file_of_four_channels_or_one_is_read(form, tmp_path):
    for channels in (1, 2) if form == "mp3" else (1, 4):
        path = tmp_path / f"{channels}.{form}"
        soundfile.write(path, np.stack([tone(44_100, 2)] * channels, 1), 44_100)
        found = open_sound(path)
        assert found.dtype == np.float32
        if form in ("ogg", "mp3"):  # they keep what one hears, not each sample
            spectrum = np.abs(np.fft.rfft(found))
            assert np.argmax(spectrum) * RATE / len(found) == pytest.approx(440, abs=1)
            assert abs(len(found) - 2 * RATE) < 0.1 * RATE
        else:
            same_tone(found, 2)


def test_a_part_of_a_file_is_that_part(tmp_path):
    whole = tone(44_100, 3) * np.linspace(0.1, 1, 3 * 44_100, dtype=np.float32)
    soundfile.write(tmp_path / "a.wav", whole, 44_100, subtype="FLOAT")
    found = open_sound(tmp_path / "a.wav", start=1.0, seconds=0.5)
    expected = open_sound(whole[44_100:66_150], 44_100)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    same = open_sound(open_sound(tmp_path / "a.wav"), start=1.0, seconds=0.5)
    np.testing.assert_allclose(same[400:-400], found[400:-400], atol=2e-3)


def test_two_hours_are_refused_or_read_in_part_within_bounded_memory(tmp_path):
    path, size = tmp_path / "long.wav", 2 * 7200 * RATE
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16, b"data", size
    )
    with path.open("wb") as file:  # silence, which takes no room on the disk, and a tone at the end
        file.write(head)
        file.seek(44 + size - 20 * RATE)
        file.write((tone(RATE, 10) * 32767).astype("<i2").tobytes())
    with pytest.raises(ValueError, match=r"long\.wav is 7,200\.0 s long, and 30 s are heard at once: take a part"):
        open_sound(path)
    tracemalloc.start()
    part = open_sound(path, start=7190.0, seconds=10.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(part) == 10 * RATE
    assert peak < 8 * part.nbytes


@pytest.mark.parametrize("form", ["wav", "flac", "ogg", "mp3", "aiff", "au"])
@pytest.mark.parametrize("left", [0.9, 0.5, 0.01])
def test_a_file_that_was_cut_off_is_named(form, left, tmp_path):
    path = tmp_path / f"cut.{form}"
    noise = np.random.default_rng(0).normal(0, 0.1, 5 * 44_100).astype(np.float32)
    soundfile.write(path, noise, 44_100)
    data = path.read_bytes()
    path.write_bytes(data[: int(left * len(data))])
    with pytest.raises(ValueError, match=rf"cut\.{form}.*(cut off|damaged)"):
        open_sound(path)


def test_what_is_no_sound_is_named(tmp_path, capfd):
    (tmp_path / "text.wav").write_text("This is a text, whatever its name says. " * 50)
    (tmp_path / "none.wav").touch()
    (tmp_path / "picture.mp3").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(5000))
    for name in ("text.wav", "picture.mp3"):
        with pytest.raises(ValueError, match=rf"{name} (cannot be read as a sound|is a sound without)"):
            open_sound(tmp_path / name)
    with pytest.raises(ValueError, match=r"none\.wav is empty"):
        open_sound(tmp_path / "none.wav")
    with pytest.raises(FileNotFoundError, match=r"gone\.wav is not there"):
        open_sound(tmp_path / "gone.wav")
    soundfile.write(tmp_path / "nothing.wav", np.zeros(0, np.float32), 16_000)
    with pytest.raises(ValueError, match=r"nothing\.wav is a sound without a sample"):
        open_sound(tmp_path / "nothing.wav")
    assert capfd.readouterr().err == ""


def test_silence_and_samples_that_are_none_are_named():
    with pytest.raises(ValueError, match="the sound is silent where it was read"):
        open_sound(np.zeros(1000, np.float32))
    quiet_first = np.concatenate([np.zeros(RATE, np.float32), tone()])
    assert len(open_sound(quiet_first)) == 2 * RATE
    with pytest.raises(ValueError, match="silent where it was read: give a sound, or another start"):
        open_sound(quiet_first, seconds=0.5)
    broken = tone()
    broken[500] = np.nan
    with pytest.raises(ValueError, match="not finite numbers"):
        open_sound(broken)
    with pytest.raises(ValueError, match=r"goes up to 1[0-9]+: give samples between -1 and 1"):
        open_sound(tone() * 30_000)
    for wrong in (np.zeros((2, 3, 4)), np.zeros(0), np.zeros(5, np.int16)):
        with pytest.raises(ValueError, match=r"give floats of shape \(samples,\) or \(samples, channels\)"):
            open_sound(wrong)
    with pytest.raises(ValueError, match=r"has 5000 channels: give .* its transpose"):
        open_sound(np.ones((2, 5000), np.float32))


def test_a_wrong_rate_start_or_length_is_named(tmp_path):
    for rate in (0, 100, 1_000_000):
        with pytest.raises(ValueError, match=rf"has {rate} samples a second: a sound here has 4,000 to 400,000"):
            open_sound(tone(), rate)
    soundfile.write(tmp_path / "a.wav", tone(), RATE)
    with pytest.raises(ValueError, match=r"rate is 8000, and .* is a file, which says its rate itself"):
        open_sound(tmp_path / "a.wav", 8000)
    for start, seconds in ((-1.0, 1.0), (0.0, 0.0), (0.0, 31.0), (float("nan"), 1.0)):
        with pytest.raises(ValueError, match=f"start is {start} and seconds is {seconds}"):
            open_sound(tone(), start=start, seconds=seconds)
    with pytest.raises(ValueError, match=r"start is 5\.0 s, and the sound is 1\.0 s long"):
        open_sound(tone(), start=5.0, seconds=1.0)


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(8000), 8000)
    monkeypatch.setattr(sound_files, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install soundfile"):
        open_sound(tmp_path / "a.wav")
    with pytest.raises(ModuleNotFoundError, match="pip install soxr"):
        open_sound(tone(8000), 8000)
