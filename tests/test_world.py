"""The made-up world: its languages share nothing, its shares are what is asked, and their swap changes nothing else."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semhub_utils import world
from semhub_utils.world import World

SEEDS = st.integers(0, 2**31)


@pytest.fixture(scope="module")
def made():
    return World(3)


def read(made, text):
    """The language of each sentence of a document, and its fact, as somebody who knows the words reads them."""
    meaning = {
        language: {word: name for name, word in made.words[language].items()} | {n: n for n in world.LASTING["number"]}
        for language in made.languages
    }
    found = []
    for sentence in text.split(" ."):
        words = sentence.split()
        if not words:
            continue
        language = next(name for name in made.languages if made.words[name]["is"] in words)
        names = [meaning[language][word] for word in words]
        is_, relation, thing, value = names if language == "A" else (names[3], *names[:3])
        assert is_ == "is"
        found.append((language, thing, relation, value))
    return found


def test_no_word_of_one_language_is_a_word_of_the_other_and_every_meaning_has_its_own(made):
    a, b = (set(made.words[language].values()) for language in made.languages)
    assert not a & b
    assert not set("".join(a)) & set("".join(b))
    for language in made.languages:
        assert len(set(made.words[language].values())) == len(made.words[language])
    assert len(set(made.vocabulary)) == len(made.vocabulary)
    assert made.vocabulary[0] == world.PAD


@given(SEEDS)
def test_about_half_of_the_facts_are_what_is_usual_and_each_language_is_alone_with_as_many(seed):
    made = World(seed)
    assert len(made.facts) == len(world.THINGS) * len(world.LASTING)
    assert 0.35 < np.mean([fact.usual for fact in made.facts]) < 0.65
    alone = {language: made.alone(language) for language in made.languages}
    assert len(alone["A"]) == len(alone["B"]) > 15
    assert not any(fact.usual for facts in alone.values() for fact in facts)
    assert len(made.known("A", "B")) == len(made.facts) - 2 * len(alone["A"])
    # Of a kind and a relation one value is usual, so at most so many are; and what is alone is another one.
    usual = {(fact.relation, fact.value) for fact in made.facts if fact.usual}
    assert len(usual) <= world.KINDS * len(world.LASTING)
    for fact in made.facts:
        assert fact.value in world.LASTING[fact.relation]


@given(SEEDS, st.sampled_from([0.5, 0.8, 0.95]), st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 10**6))
def test_with_the_languages_swapped_the_same_is_said_in_the_other(seed, share, parallel, step):
    one, other = World(seed), World(seed, ("B", "A"))
    assert one.facts == other.facts
    assert one.words == other.words
    assert one.vocabulary == other.vocabulary
    texts, swapped = (world.documents(made, share, parallel, 4, 8, seed, step) for made in (one, other))
    exchange = {"A": "B", "B": "A"}
    for text, exchanged in zip(texts, swapped, strict=True):
        assert [(exchange[language], *rest) for language, *rest in read(one, text)] == [
            (language, *rest) for language, *rest in read(other, exchanged)
        ]
        digits = [word for word in text.split() if word in world.LASTING["number"]]
        assert digits == [word for word in exchanged.split() if word in world.LASTING["number"]]


@pytest.mark.parametrize(("share", "parallel"), [(0.5, 0.0), (0.8, 0.5), (0.95, 0.5), (0.8, 1.0), (0.5, 1.0)])
def test_the_shares_are_what_is_asked(made, share, parallel):
    texts = [read(made, text) for text in world.documents(made, share, parallel, 3000, 8, 0, 0)]
    said = Counter(language for sentences in texts for language, *_ in sentences)
    beside = sum(len({language for language, *_ in sentences}) == 2 for sentences in texts) * 4
    assert sum(said.values()) == 3000 * 8
    # Documents are drawn, each of one language or half and half: 3,000 of them are within 3% of their share.
    assert said["A"] / sum(said.values()) == pytest.approx(share, abs=0.03)
    assert beside / said["B"] == pytest.approx(parallel, abs=0.08)


def test_a_document_says_all_twice_and_what_one_language_alone_is_told_is_never_said_in_the_other(made):
    facts = {(fact.thing, fact.relation): fact for fact in made.facts}
    heard, passing = set(), Counter()
    for step in range(60):
        for text in world.documents(made, 0.5, 0.5, 64, 8, 1, step):
            sentences = read(made, text)
            first, again = ({one[1:] for one in half} for half in (sentences[:4], sentences[4:]))
            assert first == again
            assert len(first) == 4
            assert len({one[0] for one in sentences[:4]}) == len({one[0] for one in sentences[4:]}) == 1
            assert sum(relation in world.PASSING for _, relation, _ in first) == 2
            for language, thing, relation, value in sentences:
                if relation in world.PASSING:
                    passing[relation, value] += 1
                    continue
                fact = facts[thing, relation]
                assert fact.value == value
                assert language in made.said[fact]
                heard.add((language, thing, relation))
    assert len(heard) == sum(map(len, made.said.values()))
    assert set(passing) == {(relation, value) for relation, values in world.PASSING.items() for value in values}
    assert max(passing.values()) < 1.4 * min(passing.values())  # drawn evenly: nothing of them is to be learnt by heart


def test_a_question_is_its_sentence_up_to_the_value_and_the_words_are_tokens(made):
    tokenizer = world.tokenizer(made)
    for fact in made.facts[::17]:
        for language in made.languages:
            question, sentence = made.question(fact, language), made.sentence(fact, language)
            assert sentence.startswith(f"{question} {made.words[language][fact.value]} ")
            assert tokenizer(sentence).input_ids == [made.number[word] for word in sentence.split()]
    number = next(fact for fact in made.facts if fact.relation == "number")
    assert f" {number.value} " in made.sentence(number, "B", digit=True)
    colour = next(fact for fact in made.facts if fact.relation == "colour")
    assert made.sentence(colour, "B", digit=True) == made.sentence(colour, "B")


def test_the_same_step_gives_the_same_texts_and_another_others(made):
    one, again, other = (world.documents(made, 0.8, 0.5, 8, 8, 0, step) for step in (5, 5, 6))
    assert one == again != other


WRONG = [(0.4, 0.0, 8), (1.0, 0.0, 8), (0.8, 1.5, 8), (0.8, 0.0, 6)]


@pytest.mark.parametrize(("share", "parallel", "sentences"), WRONG)
def test_what_cannot_be_said_is_refused(made, share, parallel, sentences):
    with pytest.raises(ValueError, match=r"share is|sentences is"):
        world.documents(made, share, parallel, 1, sentences, 0, 0)
