"""Openings that wait for a verdict, the verdicts themselves, and texts to make steering vectors from.

All of it was written for this book. The languages are English, Spanish, Chinese, French, German and Hindi.
"""

import csv
from collections.abc import Sequence
from importlib.resources import files

import pandas as pd

LANGUAGES = ("en", "es", "zh", "fr", "de", "hi")
SPLITS = ("choose", "judge")

# No word on one side begins with the same token of the embedded model as one on the other, with a space before it or
# without; and none whose first token is a word of another meaning (German "langweilig" begins with "lang", long).
_VERDICTS = {
    "en": (
        "good great nice wonderful excellent beautiful fantastic amazing interesting pleasant delicious "
        "lovely brilliant fun perfect comfortable friendly impressive superb enjoyable",
        "bad terrible awful horrible poor boring disappointing ugly dull dreadful unpleasant disgusting "
        "mediocre nasty lousy rude uncomfortable annoying unfriendly sad",
    ),
    "es": (
        "bueno buena buenos buenas bien excelente maravilloso fantástico agradable amable bonito bonita "
        "hermoso hermosa interesante divertido divertida lindo linda genial",
        "malo mala malos malas mal horrible terrible fea feo pésimo pésima decepcionante desagradable "
        "mediocre triste negativo ridículo fatal deplorable",
    ),
    "fr": (
        "bon bonne bons bonnes bien beau belle excellent agréable magnifique délicieux délicieuse intéressant "
        "intéressante sympa joli jolie réussi superbe génial",
        "mauvais mauvaise horrible affreux affreuse nul nulle ennuyeux ennuyeuse désagréable médiocre pénible "
        "triste ridicule fade laid catastrophique lamentable",
    ),
    "de": (
        "gut toll wunderbar ausgezeichnet lecker angenehm nett freundlich spannend interessant köstlich super "
        "cool fantastisch hübsch gelungen perfekt",
        "schlecht schlimm hässlich unangenehm unfreundlich grausam traurig negativ katastrophal problematisch "
        "lächerlich ekelhaft mies miserabel",
    ),
    "zh": (
        "好 棒 精彩 美 漂亮 优秀 出色 舒服 舒适 愉快 好吃 好看 好听 美味 有趣 不错 完美 开心 成功",
        "差 糟 糟糕 坏 烂 丑 恶心 失望 讨厌 失败 痛苦 无聊 可怕 恐怖 烦 臭 尴尬 惨",
    ),
    "hi": (
        "अच्छा अच्छी अच्छे बढ़िया शानदार सुंदर सुन्दर स्वादिष्ट मज़ेदार प्यारा प्यारी दिलचस्प रोचक आरामदायक लाजवाब पसंद अद्भुत उत्कृष्ट मधुर",
        "बुरा बुरी खराब घटिया बेकार भयानक निराशाजनक निराश दुखद खतरनाक कमजोर गलत शर्मनाक दर्दनाक नकारात्मक असफल",
    ),
}


def prompts(languages: Sequence[str] = ("es", "zh", "fr", "de", "hi"), split: str | None = None) -> pd.DataFrame:
    """Beginnings of sentences that go on with a verdict, good or bad, and lean to neither; a row has one meaning.

    Each ends just before the verdict, without a space: "La película de anoche fue muy". One row in three is there to
    choose settings on, such as a layer or a strength, the others to judge the choice.

    Args:
        languages: two-letter codes out of `LANGUAGES`.
        split: "choose" (20 rows) or "judge" (40 rows); None gives all 60.

    Returns:
        A frame indexed by `id`, the subject of the sentence, with `topic`, `split` and a column for each language.

    Raises:
        ValueError: for a language or a split that is not there, with those that are.
    """
    if isinstance(languages, str) or not len(languages):
        raise ValueError(f"languages is {languages!r}: give a list out of {', '.join(LANGUAGES)}")
    for language in languages:
        _check(language)
    if len(set(languages)) < len(languages):
        raise ValueError(f"languages is {list(languages)}: name each once")
    if split is not None and split not in SPLITS:
        raise ValueError(f"split is {split!r}: give 'choose', 'judge', or None for both")
    table = _read("prompts.tsv").set_index("id")
    if split is not None:
        table = table[table["split"] == split]
    return table[["topic", "split", *languages]]


def verdicts(language: str) -> tuple[list[str], list[str]]:
    """The words, good and bad, that may come next after `prompts`, in the genders and numbers that they need.

    Args:
        language: a two-letter code out of `LANGUAGES`.

    Returns:
        (good words, bad words): 14 to 20 of each. Under the tokenizer of the embedded model no good word begins with
        the token that a bad one begins with; under another one it may, and `log_odds` leaves that token out.

    Raises:
        ValueError: for a language that is not there, with those that are.
    """
    _check(language)
    good, bad = _VERDICTS[language]
    return good.split(), bad.split()


def pairs(language: str) -> list[tuple[str, str]]:
    """Short texts, one good and one bad in the same frame, whose mean difference is a direction of sentiment.

    Args:
        language: a two-letter code out of `LANGUAGES`.

    Returns:
        16 pairs (good, bad), the same in meaning and order in every language.

    Raises:
        ValueError: for a language that is not there, with those that are.
    """
    _check(language)
    table = _read("verdict_pairs.tsv").pivot(index="id", columns="side", values=language)
    return list(zip(table["good"], table["bad"], strict=True))


def contrasts() -> dict[str, list[tuple[str, str]]]:
    """Controls for `pairs`: differences of meaning with nothing good or bad in them, in English.

    Returns:
        For each of 20 names, such as "cat - dog" or "past - future", 12 pairs of short texts, words and phrases as in
        `pairs`. None has a word of `verdicts("en")` or one in which a pair's two sides differ, articles aside.
    """
    table = _read("contrasts.tsv")
    return {
        str(name): list(zip(rows["one"], rows["other"], strict=True))
        for name, rows in table.groupby("name", sort=False)
    }


def _check(language: str) -> None:
    if language not in LANGUAGES:
        raise ValueError(f"language is {language!r}: there are {', '.join(LANGUAGES)}")


def _read(name: str) -> pd.DataFrame:
    with files("semhub_utils.data").joinpath(name).open(encoding="utf-8") as file:
        return pd.read_csv(file, sep="\t", quoting=csv.QUOTE_NONE, dtype=str, keep_default_na=False)
