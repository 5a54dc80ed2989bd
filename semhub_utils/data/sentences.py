"""Short everyday sentences in ten languages, written for this book; and FLORES+ where a hub can be reached."""

import csv
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import pandas as pd

from semhub_utils.data.hub import data_file

LANGUAGES = ("en", "es", "fr", "de", "zh", "ja", "ru", "ar", "hi", "sw")
FORMS = ("statement", "question", "request", "negation", "number", "time", "quotation")

_FLORES = "openlanguagedata/flores_plus"
_FLORES_CODES = dict(en="eng_Latn", es="spa_Latn", fr="fra_Latn", de="deu_Latn", zh="cmn_Hans", ja="jpn_Jpan")
_FLORES_CODES |= dict(ru="rus_Cyrl", ar="arb_Arab", hi="hin_Deva", sw="swh_Latn")

# What may stand before the first and after the last letter of a sentence, in any of the ten languages.
_BEFORE = '¿¡ \u00a0\u202f"“„«»「『'
_AFTER = ' \u00a0\u202f.?!。？！؟।…"“”’»«」』'


def sentences(languages: Sequence[str] = LANGUAGES, plain: bool | None = None) -> pd.DataFrame:
    """The book's parallel sentences, a row for each in all the languages asked for.

    Args:
        languages: two-letter codes out of `LANGUAGES`.
        plain: True keeps the marked subset, whose sentences have no names, no digits and, under the tokenizer of the
            embedded model, no token that two languages of a row share; False keeps the others; None keeps all.

    Returns:
        A frame indexed by `id`, with `topic`, `form` (one of `FORMS`), `plain` and a column for each language. The
        sentences stand as they are written, with their punctuation: see `bare`.

    Raises:
        ValueError: for a language that is not there, with those that are.
    """
    _check_languages(languages)
    path = files("semhub_utils.data").joinpath("sentences.tsv")
    with path.open(encoding="utf-8") as file:
        table = pd.read_csv(file, sep="\t", quoting=csv.QUOTE_NONE, dtype=str, index_col="id")
    table["plain"] = table["plain"] == "yes"
    if plain is not None:
        table = table[table["plain"] == plain]
    return table[["topic", "form", "plain", *languages]]


def bare(text: str) -> str:
    """A sentence without the punctuation at its ends, so that its last token is of a word and not a full stop."""
    return text.lstrip(_BEFORE).rstrip(_AFTER)


def flores(languages: Sequence[str] = LANGUAGES, split: str = "dev", folder: str | Path | None = None) -> pd.DataFrame:
    """Sentences of FLORES+ (NLLB Team 2022; OLDI 2024), for longer and more various text than the book's own.

    They come from the Hugging Face hub, where one accepts the conditions of the data set once and logs in
    (`hf auth login`), or from a folder with its files. Reading them needs the package `pyarrow`.

    Args:
        languages: two-letter codes out of `LANGUAGES`.
        split: "dev" (997 sentences) or "devtest" (1,012).
        folder: where a copy of the data set lies, with `dev/eng_Latn.parquet` and the like; by default the hub.

    Returns:
        A frame indexed by `id` with a column for each language.

    Raises:
        ValueError: for a language or a split that is not there.
        FileNotFoundError: if the folder lacks a file.
        RuntimeError: if the hub cannot be reached or asks for a login, with what to do.
    """
    _check_languages(languages)
    if split not in ("dev", "devtest"):
        raise ValueError(f"split is {split!r}: FLORES+ has 'dev' and 'devtest'")
    columns = {}
    for language in languages:
        name = f"{split}/{_FLORES_CODES[language]}.parquet"
        frame = pd.read_parquet(data_file(_FLORES, name, folder, "the book's own `sentences()` need neither"))
        columns[language] = frame.set_index("id")["text"].str.strip()
    table = pd.DataFrame(columns)
    if table.isna().to_numpy().any():
        raise ValueError(f"FLORES+ {split} has other sentences in one of {', '.join(languages)}: the copy is not whole")
    return table


def _check_languages(languages: Sequence[str]) -> None:
    unknown = [language for language in languages if language not in LANGUAGES]
    if unknown or not len(languages) or isinstance(languages, str):
        raise ValueError(f"languages has {unknown or 'nothing'}: give a list out of {', '.join(LANGUAGES)}")
    if len(set(languages)) < len(languages):
        raise ValueError(f"languages is {list(languages)}: name each once")
