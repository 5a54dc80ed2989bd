"""Which language dominates a model: the measurements of the chapter on languages, one function for any model.

A hub that is anchored in a language shows it in three places: sentences of other languages lie near their translation
into it in the middle; the lens reads it there, above shuffled rows, at sentences of other languages; and at the end the
lens reads the language of the sentence again. A model that merely knows one language shows the second alone.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

import semhub_utils
from semhub_utils import cache
from semhub_utils.data.sentences import bare
from semhub_utils.language_model import LanguageModel
from semhub_utils.registry import MIDDLE, REGISTRY
from semhub_utils.resampling import bootstrap, interval, pick_and_judge
from semhub_utils.results import this_run
from semhub_utils.similarity import item_scores, shuffled
from semhub_utils.states import hidden_states
from semhub_utils.vocabulary import language_mass

# The languages that the lens is asked for: those of the sentences that `wordfreq` has, and one that has no sentences.
LENS = ("en", "es", "fr", "de", "zh", "ja", "ru", "ar", "hi", "pt")
NAMES = dict(en="English", es="Spanish", fr="French", de="German", zh="Chinese", ja="Japanese", ru="Russian")
NAMES |= dict(ar="Arabic", hi="Hindi", sw="Swahili", pt="Portuguese")
FOLDER = Path(__file__).parent / "data" / "dominance"
_CODE = ("dominance", "lens", "resampling", "similarity", "states", "vocabulary", "data/sentences")

Scores = Float[np.ndarray, "items layers"]


@dataclass(frozen=True)
class Measured:
    """What `measure` found, by sentence, so that two models or two languages are compared on the same ones.

    `near` and `found` hold, for each ordered pair of a sentence's language and another, the centred cosine and the
    retrieval of each sentence at each layer; `near_null` the same cosine under each dealing of the partners, averaged
    over sentences. `mass` holds by the sentence's language what the lens gives to each of `lens` (texts, layers,
    languages), and `mass_null` what its mean stays below in 95% of the dealings of the rows (layers, languages).
    """

    languages: tuple[str, ...]
    lens: tuple[str, ...]
    near: dict[tuple[str, str], Scores]
    found: dict[tuple[str, str], Scores]
    near_null: dict[tuple[str, str], Float[np.ndarray, "deals layers"]]
    mass: dict[str, Float[np.ndarray, "texts layers languages"]]
    mass_null: dict[str, Float[np.ndarray, "layers languages"]]
    seed: int

    @cached_property
    def middle(self) -> list[int]:
        """The blocks at depth 0.35 to 0.85."""
        blocks = next(iter(self.near.values())).shape[1] - 1
        return [k for k in range(blocks + 1) if MIDDLE[0] <= k / blocks <= MIDDLE[1]]

    @cached_property
    def layer_of(self) -> np.ndarray:
        """The middle block at which each sentence is judged by nearness: that of the other half, over all pairs."""
        return pick_and_judge(np.mean(list(self.near.values()), axis=0), self.middle, seed=self.seed).layer_of

    def meets(self, anchor: str, measure: str = "near", without: Collection[str] = ()) -> Float[np.ndarray, " items"]:
        """How near ("near") or how often nearest ("found") sentences of the other languages are to their `anchor` form.

        At the picked block, the mean over all other languages but those `without`.
        """
        scores = getattr(self, measure)
        all_layers = np.mean([scores[t, anchor] for t in self._others(self.languages, anchor, without)], axis=0)
        return all_layers[np.arange(len(all_layers)), self.layer_of]

    def meets_null(self, anchor: str) -> float:
        """What `meets(anchor)` stays below at its best layer in 95% of the dealings of the partners."""
        deals = np.mean([self.near_null[t, anchor] for t in self._others(self.languages, anchor)], axis=0)
        return float(np.quantile(deals.max(1), 0.95))

    def excess(self, language: str, without: Collection[str] = ()) -> Scores:
        """What the lens gives a language above shuffled rows, at sentences of all others but those `without`."""
        place = self.lens.index(language)
        read = self._others(self.mass, language, without)
        return np.mean([self.mass[t][..., place] - self.mass_null[t][:, place] for t in read], axis=0)

    def reads(self, language: str, without: Collection[str] = ()) -> Float[np.ndarray, " items"]:
        """`excess` at the middle block where it is highest on one half of the sentences, of those of the other half."""
        return pick_and_judge(self.excess(language, without), self.middle, seed=self.seed).score

    def returns(self, anchor: str, language: str) -> Float[np.ndarray, " items"]:
        """At the last layer of sentences of `language`, what the lens gives to it minus what it gives to `anchor`."""
        at_end = self.mass[language][:, -1]
        return at_end[:, self.lens.index(language)] - at_end[:, self.lens.index(anchor)]

    def lead(self, language: str, by: str) -> tuple[str, Float[np.ndarray, " items"]]:
        """By how much a language leads its nearest rival, by "meets" or by "reads".

        Two languages are compared at sentences of neither, and by "reads" each at its own best block. The nearest
        rival is the one whose bootstrap interval reaches lowest, so that no correction for their number is needed.
        """
        rivals = [one for one in (self.languages if by == "meets" else self.lens) if one != language]
        score = getattr(self, by)
        leads = {one: score(language, without=(one,)) - score(one, without=(language,)) for one in rivals}
        nearest = min(rivals, key=lambda one: interval(bootstrap(leads[one], seed=self.seed))[0])
        return nearest, leads[nearest]

    def _others(self, languages: Collection[str], *left_out: str | Collection[str]) -> list[str]:
        out = {one for given in left_out for one in ([given] if isinstance(given, str) else given)}
        return [one for one in languages if one not in out]


def measure(
    lm: LanguageModel, table: pd.DataFrame, texts: int = 16, shuffles: int = 30, seed: int = 0, batch_size: int = 64
) -> Measured:
    """Measure where the sentences of each language lie in a model, and which languages the lens reads at them.

    Nearness is that of the last token of the bare sentence, as in the chapter on languages. The lens reads each
    sentence where its last word is missing, which is one place in every tokenizer, and never inside a character.

    Args:
        lm: the model.
        table: the same sentences in each language, a column each, as `data.sentences` gives them.
        texts: how many of them the lens reads, in each language; it costs most.
        shuffles: how many dealings of the rows of the unembedding.
        seed: of the halves, the dealings and the intervals.
        batch_size: texts in one forward pass.
    """
    languages = tuple(column for column in table if column in NAMES)
    every = [bare(sentence) for language in languages for sentence in table[language]]
    # In one call, so that texts of like length share a batch.
    stacked = hidden_states(lm, every, batch_size=batch_size, progress=False)
    states = dict(zip(languages, stacked.split(len(table)), strict=True))
    near, found, near_null = {}, {}, {}
    for pair in permutations(languages, 2):
        one, other = states[pair[0]], states[pair[1]]
        near[pair], found[pair] = (item_scores(one, other, name) for name in ("centred", "retrieval"))
        near_null[pair] = shuffled(one, other, seed=seed)
    mass, mass_null = {}, {}
    for language in languages:
        openings = [opening(sentence) for sentence in table[language][:texts]]
        read = language_mass(lm, openings, LENS, shuffles=shuffles, seed=seed, batch_size=batch_size, progress=False)
        values = read[["mass", "null_high"]].to_numpy().reshape(len(openings), -1, len(LENS) + 1, 2)[:, :, : len(LENS)]
        mass[language], mass_null[language] = values[..., 0], values[0, ..., 1]
    return Measured(languages, LENS, near, found, near_null, mass, mass_null, seed)


def opening(sentence: str) -> str:
    """A bare sentence without its last word; without its last two characters in a script without spaces."""
    text = bare(sentence)
    return text.rpartition(" ")[0] if " " in text else text[:-2]


def dominance(measured: Measured) -> pd.DataFrame:
    """The rows of a model: what `measure` found, small enough for a file.

    Returns:
        A tidy frame. `measure` is "near" and "found" (sentences of `text` and their form in `language`, at the picked
        block), "reads" (what the lens gives `language` at sentences of `text`, at the block picked for it), "reads at
        the end", "meets" and "leads by meeting" (the mean over all sentences that are not in `language`, and its lead
        over the nearest `rival`), "excess" and "leads by lens" (the same for the lens, above its control), and
        "returns" (`text` minus `language` at the last layer). `value` with its 95% interval over sentences, `low` and
        `high`; `null`, what the shuffled control stays below in 95% of the dealings, NaN where there is none. In
        "excess" it is subtracted already.
    """
    rows, at = [], np.arange(len(measured.layer_of))

    def add(name: str, text: str, language: str, scores: np.ndarray, null: float = np.nan, rival: str = "") -> None:
        low, high = interval(bootstrap(scores, seed=measured.seed))
        value = float(np.clip(scores.mean(), low, high))
        rows.append((name, text, language, rival, value, float(low), float(high), null, len(scores)))

    for (text, language), scores in measured.near.items():
        null = float(np.quantile(measured.near_null[text, language].max(1), 0.95))
        add("near", text, language, scores[at, measured.layer_of], null)
        add("found", text, language, measured.found[text, language][at, measured.layer_of])
    for language in measured.languages:
        rival, lead = measured.lead(language, "meets")
        add("meets", "all others", language, measured.meets(language), measured.meets_null(language))
        add("leads by meeting", "neither", language, lead, rival=rival)
    for place, language in enumerate(measured.lens):
        excess = measured.excess(language)
        picked = pick_and_judge(excess, measured.middle, seed=measured.seed)
        rival, lead = measured.lead(language, "reads")
        others = [measured.mass_null[text] for text in measured.mass if text != language]
        null = np.mean([one[picked.layer_of, place] for one in others])
        add("excess", "all others", language, picked.score, float(null))
        add("leads by lens", "neither", language, lead, rival=rival)
        for text, mass in measured.mass.items():
            dealt = measured.mass_null[text][..., place]
            here = mass[np.arange(len(mass)), picked.layer_of, place]
            add("reads", text, language, here, float(dealt[picked.layer_of].mean()))
            add("reads at the end", text, language, mass[:, -1, place], float(dealt[-1]))
            if text in measured.lens and text != language:
                add("returns", text, language, measured.returns(language, text))
    columns = ["measure", "text", "language", "rival", "value", "low", "high", "null", "n"]
    return pd.DataFrame(rows, columns=columns)


def key(spec_name: str, revision: str, settings: Mapping[str, int]) -> str:
    """The key of a model's rows, over the code, the sentences, the settings and the weights that make them."""
    package = Path(__file__).parent
    code = [package / f"{name}.py" for name in _CODE] + [package / "data" / "sentences.tsv"]
    return cache.key(dict(settings), code=code, model=f"{spec_name} {revision}")


def write(lm: LanguageModel, rows: pd.DataFrame, settings: Mapping[str, int], folder: Path = FOLDER) -> Path:
    """Write a model's rows with where they come from, aside and renamed; returns the file."""
    records = json.loads(rows.to_json(orient="records", double_precision=6))
    made = {
        "model": lm.spec.name,
        "revision": lm.spec.revision,
        "key": key(lm.spec.name, lm.spec.revision, settings),
        "settings": dict(settings),
        "device": str(lm.device),
        "precision": str(lm.head.weight.dtype).removeprefix("torch."),
        "quantized": bool(getattr(lm.model, "is_quantized", False)),
    } | this_run(lm)
    made["versions"]["semhub_utils"] = semhub_utils.__version__
    content = {"made": made, "rows": records}
    path = folder / f"{lm.spec.name}.json"
    cache.write_text(path, json.dumps(content | {"sha256": _digest(content)}, indent=1, ensure_ascii=False) + "\n")
    return path


def read(name: str, folder: Path = FOLDER) -> tuple[pd.DataFrame | None, str]:
    """A model's rows out of its file, and a sentence on where they come from.

    No rows come out of a file that is not there, is not as the command wrote it, or was made by other code or for
    another revision of the model; the sentence then says so, with the command that makes it.
    """
    again, path = f"`python tools/dominance_row.py {name}`", folder / f"{name}.json"
    if not path.is_file():
        return None, f"no run yet: {again}"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        made, rows, digest = content["made"], content["rows"], content["sha256"]
        where = f"{made['date'][:10]}, {made['machine']}, {made['precision']}"
        current = key(name, made["revision"], made["settings"])
        is_whole = digest == _digest({"made": made, "rows": rows}) and made["model"] == name
    except (ValueError, KeyError, TypeError):
        return None, f"the file is not as it was written: {again}"
    if not is_whole:
        return None, f"the file is not as it was written: {again}"
    wanted = REGISTRY[name].revision if name in REGISTRY else made["revision"]
    if made["key"] != current or wanted not in (made["revision"], "main"):
        return None, f"out of date ({where}), made by other code, sentences or weights: {again}"
    return pd.DataFrame(rows), where


def overview(live: Mapping[str, pd.DataFrame], folder: Path = FOLDER) -> pd.DataFrame:
    """Every text model of the registry, and any other that was measured, in a row that says where it comes from.

    Args:
        live: the rows of models that were measured here and now, by name.
        folder: where the command has put those of others.

    Returns:
        Text: `meets`, the language that sentences of the others lie nearest to, with its lead; `reads`, the one that
        the lens reads most above shuffled rows at sentences of others, with its lead; `English read`, how much of the
        lens it has there, and 95% of the dealings of the rows less than; `own language at the end`, at how many
        languages of sentences the lens gives them more than English; and `from`.
    """
    listed = [name for name, spec in REGISTRY.items() if spec.takes == ("text",)]
    kept = sorted(path.stem for path in folder.glob("*.json"))
    found = {}
    for name in dict.fromkeys([*listed, *live, *kept]):
        rows, where = (live[name], "this run") if name in live else read(name, folder)
        found[name] = (_summary(rows) if rows is not None else dict.fromkeys(_COLUMNS, "")) | {"from": where}
    return pd.DataFrame.from_dict(found, orient="index").rename_axis("model")


_COLUMNS = ("meets", "reads", "English read", "own language at the end")


def _summary(rows: pd.DataFrame) -> dict[str, str]:
    by = {str(name): part for name, part in rows.groupby("measure")}

    def leader(level: str, lead: str, unit: str) -> str:
        first = by[level].loc[by[level]["value"].idxmax()]
        # Half a percent of the lens is nothing to be led by, even where it is the same at every sentence.
        if first["low"] <= (first["null"] if level == "meets" else 0.005):
            return "none above its control"
        one = by[lead].set_index("language").loc[first["language"]]
        clear = "" if one["low"] > 0 else ", not clear"
        numbers = f"{one['value']:{unit}} ({one['low']:{unit}} to {one['high']:{unit}})"
        return f"{NAMES[first['language']]}, {numbers} before {NAMES[one['rival']]}{clear}"

    english = by["excess"].set_index("language").loc["en"]
    back = by["returns"][by["returns"]["language"] == "en"]
    values = (
        leader("meets", "leads by meeting", "+.2f"),
        leader("excess", "leads by lens", "+.0%"),
        f"{english['value'] + english['null']:.0%} (shuffled {english['null']:.0%})",
        f"{int((back['low'] > 0).sum())} of {len(back)}",
    )
    return dict(zip(_COLUMNS, values, strict=True))


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
