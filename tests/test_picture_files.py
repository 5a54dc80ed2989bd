"""Picture files of every kind, and files that are none."""

import gzip

import numpy as np
import pytest
from PIL import Image

from semhub_utils.data import picture_files
from semhub_utils.data.picture_files import open_picture

SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 10"><rect width="5" height="10" fill="#f00"/></svg>'


def pixel(image, x, y):
    return image.getpixel((x, y))


def test_a_drawing_is_rendered_on_the_ground_that_is_asked_for(tmp_path):
    (tmp_path / "a.svg").write_text(SVG, encoding="utf-8")
    (tmp_path / "a.svgz").write_bytes(gzip.compress(SVG.encode()))
    for name in ("a.svg", "a.svgz"):
        made = open_picture(tmp_path / name, 20, background="#0000ff")
        assert made.mode == "RGB"
        assert made.size == (20, 20)
        assert pixel(made, 3, 10) == (255, 0, 0)
        assert pixel(made, 16, 10) == (0, 0, 255)
    clear = open_picture(tmp_path / "a.svg", 20, background=None)
    assert clear.mode == "RGBA"
    assert pixel(clear, 3, 10) == (255, 0, 0, 255)
    assert pixel(clear, 16, 10)[3] == 0


def test_the_whole_of_a_long_picture_is_kept_in_the_middle():
    made = open_picture(Image.new("RGB", (40, 20), "red"), 20, "white")
    assert pixel(made, 10, 2) == (255, 255, 255)
    assert pixel(made, 1, 10) == pixel(made, 18, 10) == (255, 0, 0)
    assert open_picture(Image.new("RGB", (40, 20)), None).size == (40, 20)


@pytest.mark.parametrize("mode", ["P", "L", "LA", "1", "CMYK", "RGBA", "I;16", "I", "F"])
def test_every_mode_comes_out_in_the_same_colours(tmp_path, mode):
    value = {"I;16": 65535 // 2, "I": 65535 // 2, "F": 0.5}.get(mode)
    if value is None:
        picture = Image.new("RGB", (8, 8), (255, 255, 255)).convert(mode)
        expected = 255
    else:
        dtype = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        picture = Image.fromarray(np.full((8, 8), value, dtype))
        picture.putpixel((0, 0), 65535 if mode != "F" else 1.0)
        expected = 128
    path = tmp_path / ("a.tif" if mode in ("CMYK", "F", "I") else "a.png")
    picture.save(path)
    for given in (picture, path):
        assert pixel(open_picture(given, 8), 4, 4) == pytest.approx((expected,) * 3, abs=2)


def test_a_palette_with_a_clear_colour_shows_the_ground(tmp_path):
    picture = Image.new("P", (8, 8), 0)
    picture.putpalette([255, 0, 0, 0, 255, 0])
    picture.save(tmp_path / "a.png", transparency=0)
    assert pixel(open_picture(tmp_path / "a.png", 8, "#0000ff"), 4, 4) == (0, 0, 255)


def test_of_an_animation_the_first_frame_is_taken(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert pixel(open_picture(tmp_path / "a.gif", 8), 4, 4) == pytest.approx((255, 0, 0), abs=3)


def test_the_orientation_that_a_camera_noted_is_obeyed(tmp_path):
    picture = Image.new("RGB", (8, 8), "white")
    picture.paste("black", (0, 0, 8, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # the top is at the right
    picture.save(tmp_path / "a.png", exif=exif)
    turned = open_picture(tmp_path / "a.png", 8)
    assert pixel(turned, 7, 4) == (0, 0, 0)
    assert pixel(turned, 0, 4) == (255, 255, 255)


def test_files_that_are_no_pictures_are_refused_by_name(tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("no picture", encoding="utf-8")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / "whole.png")
    data = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    (tmp_path / "bad.svg").write_text("<svg", encoding="utf-8")
    (tmp_path / "bad.svgz").write_bytes(b"no gzip")
    for name, what in {
        "empty.png": "is empty",
        "text.png": "cannot be read as a picture",
        "cut.png": "cannot be read as a picture",
        "bad.svg": "cannot be read as a drawing",
        "bad.svgz": "cannot be read as a drawing",
    }.items():
        with pytest.raises(ValueError, match=rf"{name.replace('.', '[.]')} {what}"):
            open_picture(tmp_path / name)
    for missing in (tmp_path / "none.png", tmp_path):
        with pytest.raises(FileNotFoundError, match="is not there, or is no file"):
            open_picture(missing)


def test_a_huge_picture_is_refused_before_it_fills_the_memory(tmp_path):
    Image.new("1", (20_000, 20_000)).save(tmp_path / "huge.png")  # 50 KB on the disk, 1.6 GB as RGBA
    with pytest.raises(ValueError, match=r"huge\.png (has 20000 x 20000 pixels|cannot be read)"):
        open_picture(tmp_path / "huge.png")
    with pytest.raises(ValueError, match="the picture has 8000 x 8000 pixels"):
        open_picture(Image.new("1", (8000, 8000)))


def drawing(attributes):
    return f'<svg xmlns="http://www.w3.org/2000/svg" {attributes}><rect width="100%" height="100%" fill="#f00"/></svg>'


@pytest.mark.parametrize(
    ("attributes", "wide"),
    [
        ('viewBox="0 0 40 10"', True),
        ('viewBox="0,0,10,40"', False),
        ('width="4cm" height="1cm"', True),
        ('width="10" height="40px"', False),
        ('width="100%" viewBox="0 0 40 10"', True),
    ],
)
def test_a_drawing_keeps_its_proportions(tmp_path, attributes, wide):
    (tmp_path / "a.svg").write_text(drawing(attributes), encoding="utf-8")
    made = open_picture(tmp_path / "a.svg", 20)
    assert pixel(made, 10, 10) == (255, 0, 0)
    assert pixel(made, 10, 1) == ((255, 255, 255) if wide else (255, 0, 0))
    assert pixel(made, 1, 10) == ((255, 0, 0) if wide else (255, 255, 255))


@pytest.mark.parametrize("attributes", ['viewBox="0 0 1 1000000"', 'width="1e9" height="1"', "", 'viewBox="0 0 0 5"'])
def test_a_drawing_of_no_size_or_endless_length_is_refused(tmp_path, attributes):
    (tmp_path / "a.svg").write_text(drawing(attributes), encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.svg cannot be read as a drawing .*it is .* wide and .* high"):
        open_picture(tmp_path / "a.svg", 20)


def test_a_drawing_with_enormous_sides_is_made_as_small_as_asked_for(tmp_path):
    (tmp_path / "a.svg").write_text(drawing('width="1000000" height="1000000"'), encoding="utf-8")
    assert open_picture(tmp_path / "a.svg", 20).size == (20, 20)


def test_a_drawing_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.svg").write_text(SVG, encoding="utf-8")
    monkeypatch.setattr(picture_files, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install resvg-py"):
        open_picture(tmp_path / "a.svg")
