"""Tables of runs too long for a chapter, made by scripts in `tools/` and kept with the book."""

import json
from importlib.resources import files

import pandas as pd

TABLES = ("layers", "frontier", "controls")


def steering_table(name: str, revision: str | None = None) -> pd.DataFrame | None:
    """One table of the control run on the prompts of the book.

    Args:
        name: "layers": for each language and layer, on the 20 prompts that choose, at one small strength, `effect`,
            the mean of (plus - minus) / 2 of the verdict log-odds in nats, `spread`, its root mean square over random
            vectors, and `chosen`. "frontier": for each language and strength at its chosen layer, `plus` and `minus`,
            the mean changes of the log-odds, `effect`, and for either sign the share of continuations that stay in
            the language (`kept_`), the rise of their log-loss in nats a token (`cost_`) and `relevance_`; `spread`
            where that reads well; the 20 prompts of `split` "choose" pick the strength, those of "judge" are measured
            there. "controls": a row for each language and vector there, on the 40 prompts that judge, `kind` being
            "English", "own", "unembedding", "random" or "unrelated".
        revision: that of the model at hand; by default it is not asked.

    Returns:
        The table, or None if another model made it.

    Raises:
        ValueError: for another name.
    """
    if name not in TABLES:
        raise ValueError(f"name is {name!r}: the tables are {', '.join(TABLES)}")
    if revision is not None and made_by()["revision"] != revision:
        return None
    return _read(f"steering_{name}.csv")


def projector_table(kind: str = "image") -> pd.DataFrame:
    """How well held-out concepts are read through each projector, by `tools/judge_projectors.py`.

    Args:
        kind: "image" or "audio".

    Returns:
        For each `projector`, `split`, `form`, `measure` and `layer`: the `median` rank of the right English noun among
        all of `things` (0 is the best) by its mean score over the tokens of the picture or the sound, "plain" or
        "centred" as in `picture_lens.word_ranks`, `low` and `high`, its 95% bootstrap interval over the `n` concepts,
        `top10`, the share of concepts with a rank below 10, and `chosen`, whether the layer is the one where that
        projector's validation concepts are read best. The `form` of a sound is the language that the held-out voice
        speaks; the layer is chosen on English.

    Raises:
        ValueError: for another kind.
    """
    return _read(f"{_projector_kind(kind)}_projectors.csv")


def projector_ranks(kind: str = "image") -> pd.DataFrame:
    """The `rank` of each test `concept` through each `projector`, by `form` and `measure`, at its chosen layer."""
    return _read(f"{_projector_kind(kind)}_projector_ranks.csv")


def grown_table() -> pd.DataFrame:
    """What was measured of the models that `tools/grow_hubs.py` grew, five seeds a cell.

    Returns:
        A row for each model (`share`, `parallel`, `swapped`, `width`, `steps`, `seed`: see `grow.Plan`), each `step` at
        which it was measured and each row of `grow.measure`: `measure`, the language `asked` in, `layer` and `value`.
    """
    wide = _read("grown.csv")
    model = ["share", "parallel", "swapped", "width", "steps", "seed", "step", "asked", "layer"]
    return wide.melt(model, var_name="measure", value_name="value").dropna(ignore_index=True)


def grown_by() -> dict:
    """What made that table: the `key` over plans, texts and settings, the version of torch, the device."""
    return json.loads(files("semhub_utils.data").joinpath("grown_key.json").read_text(encoding="utf-8"))


def _projector_kind(kind: str) -> str:
    if kind not in ("image", "audio"):
        raise ValueError(f"kind is {kind!r}: there are projectors of image and audio")
    return kind


def _read(name: str) -> pd.DataFrame:
    with files("semhub_utils.data").joinpath(name).open(encoding="utf-8") as file:
        return pd.read_csv(file)


def made_by() -> dict:
    """What made the tables of steering: the model's `revision`, the `key` over prompts, words and tool, settings."""
    return json.loads(files("semhub_utils.data").joinpath("steering_key.json").read_text(encoding="utf-8"))
