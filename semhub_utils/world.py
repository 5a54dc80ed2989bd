"""A made-up world of one meaning and two made-up languages that say it, for models that are grown from nothing.

A fact is a triple: a thing, a relation and a value, such as the dog, the colour and red. The English names are for us;
in the languages every one of them is a word of its own, and the languages share no word but the digits:

    A   is colour dog red .       the verb first
    B   colour dog red is .       the verb last

Some relations are lasting: their facts are the same in every document, and are there to be learnt by heart. The others
are passing, a mood or a tool in hand: they are drawn anew for each document, and can only be read in it.
"""

import random
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

_THINGS = (
    "dog cat horse cow sheep goat pig hen duck goose bear wolf fox deer hare mouse rat bat owl crow swan robin eagle "
    "hawk frog toad snake turtle lizard salmon trout shark whale seal crab snail worm bee ant wasp moth spider lion "
    "tiger camel zebra monkey elephant"
)
_VALUES = {
    "colour": "red blue green yellow white black brown grey pink purple orange golden",
    "home": "forest river desert city mountain island cave garden valley meadow harbour tower",
    "food": "bread apple rice honey cheese nut grass soup bean egg pear cake",
    "mood": "happy sad angry calm brave shy proud lazy gentle curious jealous lonely",
    "tool": "hammer rope lamp basket needle drum mirror ladder spoon wheel bell kite",
    "number": "1 2 3 4 5 6 7 8 9 10 11 12",
}
THINGS = tuple(_THINGS.split())
_ALL = {relation: tuple(values.split()) for relation, values in _VALUES.items()}
PASSING = {relation: _ALL[relation] for relation in ("mood", "tool")}
LASTING = {relation: values for relation, values in _ALL.items() if relation not in PASSING}
KINDS = 8
_USUAL = 0.5  # how many things of a kind have the usual value
_ALONE = 1 / 4  # of the unusual facts, how many are said in the one language alone, and in the other alone
# Sounds of which the words are made: no letter is in both, so no word can be.
_SOUNDS = {"A": ("bdglmnvz", "aou"), "B": ("ptkrsfjh", "eiy")}
PAD = "<pad>"


@dataclass(frozen=True)
class Fact:
    """A thing, a relation and a value, by their English names.

    Things are of kinds, and `usual` is whether the value is the one that most things of its kind have, so that there
    is something to learn beside single facts. What is asked across languages is not what is usual.
    """

    thing: str
    relation: str
    value: str
    usual: bool


@dataclass(frozen=True)
class World:
    """What is so in the world, in which language each fact is said, and the words.

    `languages` has the larger one first. ("B", "A") exchanges the two in everything that is said: what A says of the
    world B says, word for word, and nothing else is changed.
    """

    seed: int = 0
    languages: tuple[str, str] = ("A", "B")

    @cached_property
    def facts(self) -> tuple[Fact, ...]:
        """What lasts: one for each thing and lasting relation."""
        draw = random.Random(f"facts {self.seed}")
        kinds = [number % KINDS for number in range(len(THINGS))]
        draw.shuffle(kinds)
        found = []
        for relation, values in LASTING.items():
            usual = draw.sample(values, KINDS)
            for thing, kind in zip(THINGS, kinds, strict=True):
                is_usual = draw.random() < _USUAL
                others = [value for value in values if value != usual[kind]]
                value = usual[kind] if is_usual else draw.choice(others)
                found.append(Fact(thing, relation, value, is_usual))
        return tuple(found)

    @cached_property
    def said(self) -> dict[Fact, tuple[str, ...]]:
        """The languages in which each fact is said: both, or for some of the unusual facts one of them alone."""
        draw = random.Random(f"said {self.seed}")
        unusual = [fact for fact in self.facts if not fact.usual]
        draw.shuffle(unusual)
        count = round(len(unusual) * _ALONE)
        first, second = ((language,) for language in self.languages)
        alone = dict.fromkeys(unusual[:count], first) | dict.fromkeys(unusual[count : 2 * count], second)
        return {fact: alone.get(fact, self.languages) for fact in self.facts}

    @cached_property
    def words(self) -> dict[str, dict[str, str]]:
        """For each language the word of each meaning; "is" has one too."""
        meanings = ["is", *THINGS, *_ALL, *(value for values in _ALL.values() for value in values)]
        found = {}
        for language in _SOUNDS:
            consonants, vowels = _SOUNDS[language]
            syllables = ["".join(pair) for pair in product(consonants, vowels)]
            words = ["".join(two) for two in product(syllables, repeat=2)]
            random.Random(f"words {language} {self.seed}").shuffle(words)
            found[language] = dict(zip(meanings, words, strict=False))
        return found

    @cached_property
    def vocabulary(self) -> list[str]:
        """Every token: the mark, the full stop, the digits, the words of A, the words of B."""
        words = [word for language in _SOUNDS for word in self.words[language].values()]
        return [PAD, ".", *LASTING["number"], *words]

    @cached_property
    def number(self) -> dict[str, int]:
        """The token id of each word."""
        return {word: number for number, word in enumerate(self.vocabulary)}

    def question(self, fact: Fact, language: str) -> str:
        """The sentence up to where its value comes next."""
        is_, thing, relation = (self.words[language][one] for one in ("is", fact.thing, fact.relation))
        return f"{is_} {relation} {thing}" if language == "A" else f"{relation} {thing}"

    def sentence(self, fact: Fact, language: str, digit: bool = False) -> str:
        """The whole sentence; a number may be a digit in it."""
        value = fact.value if digit and fact.relation == "number" else self.words[language][fact.value]
        end = " ." if language == "A" else f" {self.words[language]['is']} ."
        return f"{self.question(fact, language)} {value}{end}"

    def known(self, *languages: str) -> list[Fact]:
        """The facts that are said in all of these languages."""
        return [fact for fact, said in self.said.items() if set(languages) <= set(said)]

    def alone(self, language: str) -> list[Fact]:
        """The facts that are said in that language and in no other."""
        return [fact for fact, said in self.said.items() if said == (language,)]


def documents(
    world: World, share: float, parallel: float, count: int, sentences: int, seed: int, step: int
) -> list[str]:
    """Texts of so many sentences each, the same ones for the same seed and step.

    A document says a few things twice, the second time in another order. Half of them are lasting facts, half passing
    ones. It is in the larger language, in the smaller, or in both: then it says them in the one and again in the other.
    What is drawn does not depend on the languages' names: the documents of `World(seed, ("B", "A"))` are those of
    `World(seed, ("A", "B"))` with the languages exchanged.

    Args:
        world: the world.
        share: of the sentences that are in the larger language, 0.5 or more and below 1.
        parallel: of the smaller language's sentences, how many are in documents that say the same in the larger one.
        count: documents.
        sentences: in each of them, a multiple of four.
        seed: of the data.
        step: of the training.

    Raises:
        ValueError: for a share or a part out of these bounds, or a number of sentences that is no multiple of four.
    """
    if not (0.5 <= share < 1 and 0 <= parallel <= 1):
        raise ValueError(f"share is {share} and parallel is {parallel}: give 0.5 to 1 (less than that), and 0 to 1")
    if sentences % 4:
        raise ValueError(f"sentences is {sentences}: give a multiple of four: lasting and passing facts, each twice")
    draw = random.Random(f"documents {seed} {step}")
    large, small = world.languages
    in_both = 2 * parallel * (1 - share)  # of the documents: half of such a one is in the smaller language
    in_small = (1 - parallel) * (1 - share)
    kinds = [(large, small), (small, small), (large, large)]
    weights = [in_both, in_small, 1 - in_both - in_small]
    known = {kind: world.known(*kind) for kind in kinds}
    found = []
    for _ in range(count):
        (kind,) = draw.choices(kinds, weights)
        facts = draw.sample(known[kind], sentences // 4) + [
            Fact(thing, relation, draw.choice(PASSING[relation]), usual=False)
            for thing in draw.sample(THINGS, sentences // 4)
            for relation in [draw.choice(list(PASSING))]
        ]
        said = []
        for language in kind[::-1] if draw.random() < 0.5 else kind:
            draw.shuffle(facts)
            said += [world.sentence(fact, language, digit=draw.random() < 0.5) for fact in facts]
        found.append(" ".join(said))
    return found


def tokenizer(world: World) -> PreTrainedTokenizerFast:
    """One token a word; words are parted by spaces."""
    inner = Tokenizer(WordLevel(dict(world.number)))
    inner.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token=PAD, padding_side="left")
