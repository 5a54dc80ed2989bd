"""Controls: what they offer, what a change of one shows, and what the page gets without them."""

import ipywidgets
import pytest

import semhub_utils as sh


@pytest.fixture
def controls(monkeypatch):
    """The controls of the last `live`, each moved as a reader would move it."""
    made = {}
    interact = ipywidgets.interact

    def keep(show, **kwargs):
        made.update(kwargs)
        made["all"] = interact(show, **kwargs).widget
        return made["all"]

    monkeypatch.setattr(ipywidgets, "interact", keep)
    monkeypatch.delenv("SEMHUB_WIDGETS", raising=False)
    return made


def test_every_choice_of_every_control_is_shown_when_it_is_chosen(controls):
    seen = []
    sh.live(lambda language, layer: seen.append((language, layer)), language=["es", "zh"], layer=[13, 0, 18])
    controls["all"].update()
    assert seen[-1] == ("es", 13)
    for language in ("zh", "es"):
        controls["language"].value = language
        for layer in (0, 18, 13):
            controls["layer"].value = layer
            assert seen[-1] == (language, layer)


def test_numbers_get_a_slider_in_order_that_waits_for_the_hand_and_names_get_a_list(controls):
    sh.live(lambda language, layer: None, language=["es", "zh"], layer=[13, 0, 18])
    assert isinstance(controls["layer"], ipywidgets.SelectionSlider)
    assert list(controls["layer"].options) == [0, 13, 18]
    assert controls["layer"].value == 13
    assert not controls["layer"].continuous_update
    assert isinstance(controls["language"], ipywidgets.Dropdown)
    assert controls["language"].value == "es"


def test_without_a_reader_the_first_choices_are_shown_once_and_no_control_is_made(controls, monkeypatch, capsys):
    monkeypatch.setenv("SEMHUB_WIDGETS", "0")
    seen = []

    def show(language, layer):
        seen.append((language, layer))
        return f"layer {layer} of {language}"

    sh.live(show, language=["es", "zh"], layer=[13, 0])
    assert seen == [("es", 13)]
    assert not controls
    assert "layer 13 of es" in capsys.readouterr().out


@pytest.mark.parametrize(("choices", "named"), [({}, "any argument"), ({"layer": [], "text": ["a"]}, "layer")])
def test_no_choices_are_refused_by_name(choices, named):
    with pytest.raises(ValueError, match=f"nothing for {named}: give at least one"):
        sh.live(print, **choices)
