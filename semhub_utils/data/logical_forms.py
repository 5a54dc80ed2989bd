"""Sentences with their logical forms, made by a small grammar of the book's own, in the notation of COGS.

In that notation (Kim and Linzen 2020) a form is a set of facts joined by AND. `x _ 2` is whatever the word at position
2 of the sentence brings in, a name stands for itself, and definite nouns come first, each with a star:

    Emma gave the cake to a boy .
    * cake ( x _ 3 ) ; give . agent ( x _ 1 , Emma ) AND give . theme ( x _ 1 , x _ 3 ) AND
    give . recipient ( x _ 1 , x _ 6 ) AND boy ( x _ 6 )

The words are ours, the notation is the field's; `semhub_utils.data.cogs` reads the real files.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import pandas as pd

from semhub_utils.data.cogs import variants


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NAMES = _words(
    "Emma Noah Anna Jack Laura Peter Maria David Alice Robert Sarah Daniel Julia Thomas Clara Simon Diana Martin Helen "
    "George Nina Oscar Ruth Henry Karen Frank Susan Victor Rosa Walter Linda Paul"
)
# Made up, and never among the sentences of the other names.
UNSEEN = _words("Zorvin Belka Tamrik Oskeen Wenlo Quarra Dremis Yalvo Fenora Murkel Sibret Havvin")

# Verbs as a form has them, in the past, and as a participle where it is needed and differs.
_VERB_LISTS = {
    "transitive": "help helped, follow followed, visit visited, thank thanked, greet greeted, watch watched, "
    "warn warned, call called, push pushed, miss missed, kick kicked, ask asked, praise praised, blame blamed, "
    "chase chased, invite invited, admire admired, tease teased, hug hugged, see saw seen, find found, hear heard",
    "dative": "give gave given, sell sold, send sent, lend lent, hand handed, show showed shown, offer offered",
    "unergative": "sleep slept, laugh laughed, sing sang, smile smiled, dance danced, run ran, cry cried, swim swam",
    "unaccusative": "break broke, fall fell, roll rolled, burn burned, vanish vanished, move moved",
    "attitude": "say said, believe believed, hope hoped, know knew",
    "control": "want wanted, try tried, plan planned, need needed",
}
_VERBS = {
    kind: tuple((_words(verb)[0], _words(verb)[1], _words(verb)[-1]) for verb in verbs.split(", "))
    for kind, verbs in _VERB_LISTS.items()
}
TRANSITIVE = _VERBS["transitive"]
# Nouns begin with a consonant, so that "a" is right before each.
_PEOPLE = _words("teacher doctor child farmer singer baker pilot nurse painter soldier girl boy")
_THINGS = _words("cake book letter ball box ring lamp cup hat key map coat")
_PLACES = {
    "on": _words("table bench shelf bed"),
    "in": _words("garden room kitchen car"),
    "beside": _words("tree door"),
}

# What each construction says, word by word, with the class of its verb. A role is filled by a person, unless it is in
# _OBJECTS; CLAUSE is another sentence; "person" is what the governing verb's agent does or whom it concerns.
_CONSTRUCTIONS = {
    "active": ("transitive", "agent past theme"),
    "passive": ("transitive", "theme was participle by agent"),
    "to-dative": ("dative", "agent past theme to recipient"),
    "double object": ("dative", "agent past recipient theme"),
    "passive to-dative": ("dative", "theme was participle to recipient by agent"),
    "passive double object": ("dative", "recipient was participle theme by agent"),
    "unergative": ("unergative", "agent past"),
    "unaccusative": ("unaccusative", "theme past"),
    "complement": ("attitude", "agent past that CLAUSE"),
    "control": ("control", "agent past to VERB"),
}
CONSTRUCTIONS = tuple(_CONSTRUCTIONS)
# Those in which two people are named once each, so that swapping their names changes no word's number: the form of a
# control sentence has its agent twice.
REVERSIBLE = tuple(name for name in CONSTRUCTIONS if name not in ("unergative", "unaccusative", "control"))
_OBJECTS = {("dative", "theme"), ("unaccusative", "theme")}
_ROLES = ("agent", "theme", "recipient")
_Choice = TypeVar("_Choice")


def logical_forms(
    n: int = 200,
    seed: int = 0,
    constructions: Sequence[str] | None = None,
    two_names: bool = False,
    names: Sequence[str] = NAMES,
) -> pd.DataFrame:
    """Sentences of our grammar with their logical forms, and with wrong forms that are hard to tell from them.

    The constructions take turns. People are names, or nouns with "the" or "a"; things are nouns, some of them with a
    place ("the cake on a table").

    Args:
        n: how many sentences, no two alike.
        seed: the same seed and arguments give the same frame.
        constructions: some of `CONSTRUCTIONS`, by default all that may be asked for.
        two_names: only sentences with exactly two people, each named once in the form; then out of `REVERSIBLE`.
        names: at least two names to draw from; `UNSEEN` are made up.

    Returns:
        A frame with `construction`, `sentence` and what `variants` adds to its `form`.

    Raises:
        ValueError: for a construction that is not there, two names asked of one that has room for one person, fewer
            than two names, an `n` below 1, or one that is more than the grammar has sentences for.
    """
    known = REVERSIBLE if two_names else CONSTRUCTIONS
    constructions = known if constructions is None else constructions
    unknown = [name for name in constructions if name not in known]
    if unknown or not len(constructions) or isinstance(constructions, str):
        raise ValueError(f"constructions has {unknown or 'no list'}: give a list out of {', '.join(known)}")
    if len(set(names)) < 2:
        raise ValueError(f"names is {list(names)}: give two names or more")
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(f"n is {n!r}: give 1 or more sentences")
    rng = np.random.default_rng(seed)
    rows: dict[str, tuple[str, str, str]] = {}
    for turn in range(n):
        name = constructions[turn % len(constructions)]
        for _ in range(200):  # until it is a new one
            draft = _Draft(rng, [str(name) for name in rng.permutation(names)], two_names)
            _clause(draft, name)
            if draft.sentence() not in rows:
                break
        else:
            raise ValueError(f"n is {n}: only {turn} different sentences came of it; give more constructions or names")
        rows[draft.sentence()] = (name, draft.sentence(), draft.form())
    return variants(pd.DataFrame(rows.values(), columns=["construction", "sentence", "form"]), seed)


def crossed(pairs: int = 12, verbs: int = 12, seed: int = 0) -> pd.DataFrame:
    """Every way in which two names can stand around a verb: either may act, in an active or a passive sentence.

    With four sentences for each pair of names and verb, who acts has nothing to do with who comes first, nor with the
    voice: a reader who knows one of them knows nothing of who acts.

    Args:
        pairs: how many pairs of names, at most half of `NAMES`; no name is in two of them.
        verbs: how many verbs, at most as many as `TRANSITIVE` has.
        seed: of the draw.

    Returns:
        A frame with `pair`, `verb`, `voice` ("active" or "passive"), `agent`, `theme`, `first` (the name that comes
        first), `acts` (0 if the agent is the first name of its pair, 1 if it is the second), `sentence` and `form`.

    Raises:
        ValueError: for fewer than one, or more than there are.
    """
    for what, given, most in (("pairs", pairs, len(NAMES) // 2), ("verbs", verbs, len(TRANSITIVE))):
        if not 1 <= given <= most:
            raise ValueError(f"{what} is {given}: give 1 to {most}")
    rng = np.random.default_rng(seed)
    drawn = rng.permutation(NAMES)[: 2 * pairs].reshape(pairs, 2).tolist()
    chosen = [TRANSITIVE[i] for i in sorted(rng.permutation(len(TRANSITIVE))[:verbs])]
    rows = []
    for pair in range(pairs):
        for verb in chosen:
            for acts in (0, 1):
                agent, theme = drawn[pair][acts], drawn[pair][1 - acts]
                for voice in ("active", "passive"):
                    draft = _Draft(rng, [agent, theme] if voice == "active" else [theme, agent], True)
                    _clause(draft, voice, verb)
                    first = draft.tokens[0]
                    rows.append((pair, verb[0], voice, agent, theme, first, acts, draft.sentence(), draft.form()))
    columns = ["pair", "verb", "voice", "agent", "theme", "first", "acts", "sentence", "form"]
    return pd.DataFrame(rows, columns=columns)


@dataclass
class _Draft:
    """A sentence while it is made: its words, and facts by the position of the word that brings them in."""

    rng: np.random.Generator
    names: list[str]
    only_names: bool
    tokens: list[str] = field(default_factory=list)
    said: list[tuple[int, str]] = field(default_factory=list)
    definite: list[str] = field(default_factory=list)
    used: set = field(default_factory=set)

    def sentence(self) -> str:
        text = " ".join([*self.tokens, "."])
        return text[0].upper() + text[1:]

    def form(self) -> str:
        return "".join(f"* {noun} ; " for noun in self.definite) + " AND ".join(
            fact for _, fact in sorted(self.said, key=lambda pair: pair[0])
        )

    def choose(self, words: Sequence[_Choice]) -> _Choice:
        left = [word for word in words if word not in self.used] or list(words)
        word = left[self.rng.integers(len(left))]
        self.used.add(word)
        return word

    def person(self) -> str:
        """Write a person, and return how the form calls them."""
        if self.only_names or self.rng.random() < 0.5:
            self.tokens.append(self.names.pop(0))
            return self.tokens[-1]
        return self.noun(_PEOPLE)

    def noun(self, nouns: Sequence[str]) -> str:
        noun, definite = self.choose(nouns), self.rng.random() < 0.5
        self.tokens += ["the" if definite else "a", noun]
        at = len(self.tokens) - 1
        if definite:
            self.definite.append(f"{noun} ( x _ {at} )")
        else:
            self.said.append((at, f"{noun} ( x _ {at} )"))
        return f"x _ {at}"

    def thing(self) -> str:
        thing = self.noun(_THINGS)
        if self.rng.random() < 0.25:
            at, noun, preposition = len(self.tokens) - 1, self.tokens[-1], self.choose(list(_PLACES))
            self.tokens.append(preposition)
            where = self.noun(_PLACES[preposition])
            self.said.append((at, f"{noun} . nmod . {preposition} ( {thing} , {where} )"))
        return thing


def _clause(draft: _Draft, construction: str, verb: tuple[str, ...] | None = None, subject: str = "") -> int:
    """Write a clause into the draft, and return the position of its verb; `subject` is who an infinitive is about."""
    kind, pattern = _CONSTRUCTIONS[construction]
    lemma, past, participle = verb or draft.choose(_VERBS[kind])
    words = pattern.split()
    arguments: list[tuple[str, str]] = []
    at, agent = -1, subject
    for word in ["infinitive", *words[words.index("past") + 1 :]] if subject else words:
        if word in ("past", "participle", "infinitive"):
            at = len(draft.tokens)
            draft.tokens.append({"past": past, "participle": participle, "infinitive": lemma}[word])
        elif word in _ROLES:
            who = draft.thing() if (kind, word) in _OBJECTS else draft.person()
            arguments.append((word, who))
            agent = who if word == "agent" else agent
        elif word == "VERB":
            inner = draft.choose(["active"] if draft.only_names else ["active", "unergative"])
            arguments.append(("xcomp", f"x _ {_clause(draft, inner, subject=agent)}"))
        elif word == "CLAUSE":
            inner = draft.choose(["unergative"] if draft.only_names else ["active", "passive", "unergative"])
            arguments.append(("ccomp", f"x _ {_clause(draft, inner)}"))
        else:
            draft.tokens.append(word)
    if subject:
        arguments.insert(0, ("agent", subject))
    draft.said += [(at, f"{lemma} . {role} ( x _ {at} , {who} )") for role, who in arguments]
    return at
