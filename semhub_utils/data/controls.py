"""The tables of the long control run of steering, made by `tools/steering_controls.py` and kept with the book."""

import json
from importlib.resources import files

import pandas as pd

TABLES = ("choice", "controls")


def steering_table(name: str, revision: str | None = None) -> pd.DataFrame | None:
    """One table of the control run on the prompts of the book.

    Args:
        name: "choice", a row for each language, layer and strength on the 20 prompts that choose: `effect`, the mean
            of (plus - minus) / 2 of the verdict log-odds in nats; `spread`, the standard deviation of that effect
            over random vectors; `kept`, the smaller share of continuations of the two signs that stay in the
            language; `cost`, the larger rise of their log-loss in nats a token; `chosen`, where the language is
            judged. Or "controls", a row for each language and vector there, on the 40 prompts that judge: `kind`
            ("English", "own", "unembedding", "random", "unrelated"), `plus` and `minus`, the mean changes of the
            log-odds, and `effect`.
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
    with files("semhub_utils.data").joinpath(f"steering_{name}.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)


def made_by() -> dict:
    """What made the tables: the model's `revision`, the `key` over prompts, words and the tool, its settings."""
    return json.loads(files("semhub_utils.data").joinpath("steering_key.json").read_text(encoding="utf-8"))
