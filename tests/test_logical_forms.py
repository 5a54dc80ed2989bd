"""The sentences with logical forms: every form says what its sentence says, and its companions what they should."""

import re
from collections import Counter

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semhub_utils.data import cogs, crossed, logical_forms
from semhub_utils.data.cogs import facts, names_of, variants
from semhub_utils.data.logical_forms import (
    _VERBS,
    CONSTRUCTIONS,
    NAMES,
    REVERSIBLE,
    TRANSITIVE,
    UNSEEN,
)

PAST = {past: (lemma, kind) for kind, verbs in _VERBS.items() for lemma, past, _ in verbs}
PARTICIPLE = {part: (lemma, kind) for kind in ("transitive", "dative") for lemma, _, part in _VERBS[kind]}
INFINITIVE = {lemma: kind for kind in ("transitive", "unergative") for lemma, _, _ in _VERBS[kind]}
SUBJECT = {"unaccusative": "theme"}
PREPOSITIONS = ("on", "in", "beside")


def derive(sentence):
    """The facts of a sentence, worked out by reading it from left to right and without our grammar."""
    words = sentence.split(" ")
    assert words.pop() == "."
    words[0] = words[0] if words[0] in (*NAMES, *UNSEEN) else words[0].lower()
    found, definite, at = set(), set(), 0

    def phrase():
        nonlocal at
        if words[at] not in ("the", "a"):
            at += 1
            return words[at - 1]
        assert words[at] == "the" or words[at + 1][0] not in "aeiou"
        here, noun = at + 1, words[at + 1]
        (definite if words[at] == "the" else found).add((noun, str(here)))
        at += 2
        if at < len(words) and words[at] in PREPOSITIONS:
            preposition = words[at]
            at += 1
            found.add((f"{noun}.nmod.{preposition}", str(here), phrase()))
        return str(here)

    def objects(kind):
        """What follows a verb: themes and recipients, by whether `to` or another phrase comes."""
        nonlocal at
        passed = []
        while at < len(words) and words[at] not in ("by", "that"):
            to = words[at] == "to"
            at += to
            passed.append((to, phrase()))
        if kind == "dative" and len(passed) == 2:
            return (
                {"theme": passed[0][1], "recipient": passed[1][1]}
                if passed[1][0]
                else {
                    "recipient": passed[0][1],
                    "theme": passed[1][1],
                }
            )
        return {"theme": passed[0][1]} if passed and not passed[0][0] else {"recipient": passed[0][1]} if passed else {}

    def clause():
        nonlocal at
        subject = phrase()
        if words[at] == "was":
            verb, (lemma, kind), at = at + 1, PARTICIPLE[words[at + 1]], at + 2
            rest = objects(kind)
            # What the subject of a passive is, is what its verb lacks.
            roles = rest | {"recipient" if kind == "dative" and "theme" in rest else "theme": subject}
            assert words[at] == "by"
            at += 1
            roles["agent"] = phrase()
        else:
            verb, (lemma, kind), at = at, PAST[words[at]], at + 1
            roles = {SUBJECT.get(kind, "agent"): subject}
            if kind == "attitude":
                assert words[at] == "that"
                at += 1
                roles["ccomp"] = str(clause())
            elif kind == "control":
                assert words[at] == "to"
                inner, lemma_of_inner, at = at + 1, words[at + 1], at + 2
                roles["xcomp"] = str(inner)
                inner_roles = {"agent": subject} | objects(INFINITIVE[lemma_of_inner])
                found.update((f"{lemma_of_inner}.{role}", str(inner), who) for role, who in inner_roles.items())
            else:
                roles |= objects(kind)
        found.update((f"{lemma}.{role}", str(verb), who) for role, who in roles.items())
        return verb

    clause()
    assert at == len(words), sentence
    return found, definite


def meaning(form):
    """The facts of a form, read off its notation."""
    definites, listed = facts(form)
    read = re.findall(r"\* (\w+) \( x _ (\d+) \) ; ", definites)
    assert "".join(f"* {noun} ( x _ {at} ) ; " for noun, at in read) == definites
    found = []
    for fact in listed:
        predicate, arguments = re.fullmatch(r"(\w+(?: \. \w+)*) \( (.+) \)", fact).groups()
        found.append((predicate.replace(" . ", "."), *(a.removeprefix("x _ ") for a in arguments.split(" , "))))
    assert len(set(found)) == len(found)
    return set(found), set(read)


def swap_everywhere(form, a, b):
    return re.sub(rf"\b({a}|{b})\b", lambda found: b if found[1] == a else a, form)


@pytest.fixture(scope="module")
def table():
    return logical_forms(300, seed=3)


@pytest.fixture(scope="module")
def reversible():
    return logical_forms(140, seed=4, two_names=True)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_each_form_says_what_its_sentence_says(seed):
    for row in logical_forms(20, seed).itertuples():
        assert meaning(row.form) == derive(row.sentence), row.sentence


def test_a_form_written_by_hand():
    table = logical_forms(800, constructions=["to-dative"]).set_index("sentence")["form"]
    pattern = re.compile(r"(\w+) gave the (\w+) to a (\w+) \.")
    giver, thing, taker = next(found for found in map(pattern.fullmatch, table.index) if found).groups()
    assert table[f"{giver} gave the {thing} to a {taker} ."] == (
        f"* {thing} ( x _ 3 ) ; give . agent ( x _ 1 , {giver} ) AND give . theme ( x _ 1 , x _ 3 ) "
        f"AND give . recipient ( x _ 1 , x _ 6 ) AND {taker} ( x _ 6 )"
    )


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_every_variable_is_the_position_of_its_word(seed):
    for row in logical_forms(20, seed).itertuples():
        words = row.sentence.split(" ")
        for predicate, at in re.findall(r"(\w+)(?: \. \w+)* \( x _ (\d+)", row.form):
            word = words[int(at)]
            assert predicate in (word, PAST.get(word, ("",))[0], PARTICIPLE.get(word, ("",))[0])


def test_the_facts_stand_in_the_order_of_their_words_as_in_cogs(table):
    for row in table.itertuples():
        definites, listed = facts(row.form)
        places = [int(re.search(r"x _ (\d+)", fact)[1]) for fact in listed]
        assert places == sorted(places)
        starred = [int(at) for at in re.findall(r"x _ (\d+)", definites)]
        assert starred == sorted(starred)
        assert [name for name in row.sentence.split(" ") if name in NAMES] == list(row.names)


def test_every_construction_takes_its_turn_and_no_sentence_comes_twice(table):
    assert set(table["construction"]) == set(CONSTRUCTIONS)
    assert table["sentence"].is_unique
    assert table["construction"].value_counts().min() >= 15
    joined = " ".join(table["form"])
    assert all(f" . {part} " in joined for part in ("nmod . on", "nmod . in", "nmod . beside", "ccomp", "xcomp"))
    assert table["form"].str.contains("* ", regex=False).any()


def test_a_seed_reproduces_and_another_differs(table):
    pd.testing.assert_frame_equal(table, logical_forms(300, seed=3))
    assert not table["sentence"].equals(logical_forms(300, seed=6)["sentence"])


def test_made_up_names_are_the_only_names():
    table = logical_forms(40, names=UNSEEN)
    used = {name for names in table["names"] for name in names}
    assert used
    assert used <= set(UNSEEN)
    assert not set(UNSEEN) & set(NAMES)
    assert not used & set(" ".join(logical_forms(40)["sentence"]).split(" "))


def test_two_names_are_named_once_each(reversible):
    assert set(reversible["construction"]) == set(REVERSIBLE)
    assert list(reversible["construction"]) == list(REVERSIBLE) * 20
    for row in reversible.itertuples():
        assert len(row.names) == 2
        assert [Counter(row.form.split(" "))[name] for name in row.names] == [1, 1]
        assert not {"the teacher", "a teacher"} & set(re.findall(r"(?:the|a) \w+", row.sentence))


def test_swapping_is_its_own_inverse_and_changes_names_alone(reversible):
    for row in reversible.itertuples():
        a, b = row.names
        assert row.swapped == swap_everywhere(row.form, a, b) != row.form
        assert swap_everywhere(row.swapped, a, b) == row.form
        assert [w for w in row.swapped.split(" ") if w not in (a, b)] == [
            w for w in row.form.split(" ") if w not in (a, b)
        ]
        assert meaning(row.swapped) != meaning(row.form)


def test_reordering_keeps_every_fact_and_turns_the_names(reversible):
    for row in reversible.itertuples():
        assert meaning(row.reordered) == meaning(row.form)
        assert row.reordered != row.form
        assert names_of(row.reordered) == row.names[::-1] == names_of(row.swapped)
        assert meaning(row.shuffled) == meaning(row.swapped)
        assert row.shuffled == swap_everywhere(row.reordered, *row.names)
        assert names_of(row.shuffled) == row.names == names_of(row.form)


def test_the_four_forms_have_the_same_words(reversible):
    for row in reversible.itertuples():
        words = [sorted(text.split(" ")) for text in (row.form, row.swapped, row.reordered, row.shuffled)]
        assert all(these == words[0] for these in words)


def test_what_cannot_be_swapped_or_reordered_is_missing(table):
    for row in table.itertuples():
        assert pd.isna(row.swapped) == (len(row.names) != 2)
        assert pd.isna(row.reordered) == (" AND " not in row.form)
        assert pd.isna(row.shuffled) == (pd.isna(row.swapped) or pd.isna(row.reordered))
        if not pd.isna(row.reordered):
            assert meaning(row.reordered) == meaning(row.form)


def test_roles_by_name_are_those_of_the_sentence(table):
    for row in table.itertuples():
        found, _ = derive(row.sentence)
        for name in row.names:
            assert set(row.roles[name]) == {predicate for predicate, *rest in found if rest[1:] == [name]}
        assert set(row.roles) == set(row.names)
    assert any(len(roles) > 1 for roles in map(dict.values, table["roles"]) for roles in roles)


def test_crossed_sentences_balance_who_acts_against_order_and_voice():
    table = crossed(5, 4, seed=1)
    assert len(table) == 5 * 4 * 4
    assert table.groupby(["pair", "verb", "acts", "voice"]).size().eq(1).all()
    pairs = table.groupby("pair")["agent"].unique()
    assert all(len(names) == 2 for names in pairs)
    assert len({name for names in pairs for name in names}) == 10
    for _, same in table.groupby(["pair", "verb"]):
        assert same.groupby("first")["acts"].mean().eq(0.5).all()
        assert same.groupby("voice")["acts"].mean().eq(0.5).all()
        assert same["agent"].value_counts().eq(2).all()
    for row in table.itertuples():
        found, _ = meaning(row.form)
        assert {(p.split(".")[1], who) for p, _, who in found} == {("agent", row.agent), ("theme", row.theme)}
        assert meaning(row.form) == derive(row.sentence)
        assert row.sentence.split(" ")[0] == row.first
        assert (row.first == row.agent) == (row.voice == "active")
    pd.testing.assert_frame_equal(table, crossed(5, 4, seed=1))


def test_crossed_needs_as_many_as_there_are():
    assert len(crossed(len(NAMES) // 2, len(TRANSITIVE))) == len(NAMES) // 2 * len(TRANSITIVE) * 4
    with pytest.raises(ValueError, match=f"pairs is 99: give 1 to {len(NAMES) // 2}"):
        crossed(99, 2)
    with pytest.raises(ValueError, match="verbs is 0: give 1 to"):
        crossed(2, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(constructions=["cleft"]), r"constructions has \['cleft'\]: give a list out of active, passive"),
        (dict(constructions=[]), "constructions has no list"),
        (dict(constructions="active"), "constructions has"),
        (dict(constructions=["unergative"], two_names=True), r"constructions has \['unergative'\]"),
        (dict(names=["Emma", "Emma"]), "give two names or more"),
        (dict(n=0), "n is 0: give 1 or more sentences"),
        (dict(n=True), "n is True"),
        (
            dict(n=50, constructions=["active"], two_names=True, names=["Emma", "Noah"]),
            "n is 50: only 4[0-4] different",
        ),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        logical_forms(**{"n": 5, **arguments})


LINES = """\
Emma saw Noah .\tsee . agent ( x _ 1 , Emma ) AND see . theme ( x _ 1 , Noah )\tin_distribution
The lamp fell .\t* lamp ( x _ 1 ) ; fall . theme ( x _ 2 , x _ 1 )\tin_distribution
Paula\tPaula\tprimitive
"""


def test_the_reader_of_cogs_files(tmp_path):
    path = tmp_path / "dev.tsv"
    path.write_text(LINES, encoding="utf-8")
    table = cogs(path)
    assert list(table["sentence"]) == ["Emma saw Noah .", "The lamp fell .", "Paula"]
    assert list(table["construction"]) == ["in_distribution", "in_distribution", "primitive"]
    assert list(table["names"]) == [("Emma", "Noah"), (), ()]
    assert table["roles"][0] == {"Emma": ("see.agent",), "Noah": ("see.theme",)}
    assert table["swapped"][0] == "see . agent ( x _ 1 , Noah ) AND see . theme ( x _ 1 , Emma )"
    assert table["reordered"][0] == "see . theme ( x _ 1 , Noah ) AND see . agent ( x _ 1 , Emma )"
    assert table[["swapped", "reordered", "shuffled"]].iloc[1:].isna().all(axis=None)


def test_the_reader_says_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is not there: give a file such as dev\.tsv of najoungkim/COGS"):
        cogs(tmp_path / "none.tsv")
    (tmp_path / "two.tsv").write_text("A b .\tc\td\nonly one part\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"line 2 of .*two.tsv is 'only one part': each line is sentence, form, kind"):
        cogs(tmp_path / "two.tsv")
    with pytest.raises(RuntimeError, match="cannot be read"):
        cogs(tmp_path)
    with pytest.raises(RuntimeError, match=r"https://127\.0\.0\.1:1/dev\.tsv cannot be read .* give a path"):
        cogs("https://127.0.0.1:1/dev.tsv")


def test_a_repeated_name_swaps_everywhere_and_still_turns():
    form = "want . agent ( x _ 1 , Ann ) AND want . xcomp ( x _ 1 , x _ 3 ) AND see . agent ( x _ 3 , Ann ) AND "
    form += "see . theme ( x _ 3 , Bo )"
    for seed in range(20):
        [row] = variants(pd.DataFrame({"sentence": ["Ann wanted to see Bo ."], "form": [form]}), seed).itertuples()
        assert Counter(row.swapped.split(" "))["Bo"] == 2
        assert names_of(row.reordered) == ("Bo", "Ann")
        assert meaning(row.reordered) == meaning(form)
