"""Places in programs: what the commas and the arguments are, and which token ends there, on programs made at random."""

import ast
import builtins
import inspect
from dataclasses import dataclass, field

import huggingface_hub
import pandas as pd
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

import semhub_utils as sh
from semhub_utils import data
from semhub_utils.data import places
from semhub_utils.data.places import calls, commas, operators, tokens_at, without_docstrings
from semhub_utils.data.programs import humaneval, mbpp

DEFINED = "def f(a, b=0, c=1, *rest, d=0): ...\n\n\nasync def été(длина, /, 数): ...\n\n\n"
PARAMETERS = {
    "f": ["a", "b", "c"],
    "été": ["длина", "数"],
    "len": ["obj"],
    "round": ["number", "ndigits"],
    "unknown": [],
}


@dataclass
class Piece:
    """A text that knows where its commas between list elements end, and its arguments begin."""

    text: str = ""
    commas: list = field(default_factory=list)
    sites: list = field(default_factory=list)

    def __add__(self, other):
        if isinstance(other, str):
            other = Piece(other)
        moved = [end + len(self.text) for end in other.commas]
        sites = [(end + len(self.text), *rest) for end, *rest in other.sites]
        return Piece(self.text + other.text, self.commas + moved, self.sites + sites)

    def comma_here(self):
        return Piece(self.text, [*self.commas, len(self.text)], self.sites)

    def site_here(self, *what):
        return Piece(self.text, self.commas, [*self.sites, (len(self.text), *what)])


GAPS = st.sampled_from(["", "", " ", "  ", "\t", "\n    ", "\n\t", " \\\n", " # a, [b], f(c, 变\n", "\x0c"])
PLAIN = st.sampled_from(
    ["x", "été", "变量", "σ", "-1", "2.5e3", "None", "...", "x.y", "not x", "x[1, 2]", "x[1:2, ::3]"]
)
# What Python may hold between quotes as it is, from every script; no "▁", which some tokenizers read as a space.
LETTERS = st.characters(exclude_categories=["C", "Z"], exclude_characters="\"'\\{}▁\ufffd")
WORDS = st.text(st.one_of(LETTERS, st.sampled_from(list(" ,[]()#=\u2028\x0c\u00a0🐍é语"))), max_size=12)
STRINGS = st.one_of(
    WORDS.map(lambda words: f'"{words}"'.replace("\x0c", " ")),
    WORDS.map(lambda words: f'"""{words}\n, [x, y] f(x,\n{words} """'),
    st.text(max_size=8).map(repr),
    WORDS.map(lambda words: f'f"{words} {{[x, len(y)]}} {{f(x, y)!r:>{{x}}}}"'),
    WORDS.map(lambda words: f"rb'{words.encode('ascii', 'ignore').decode()}' b','".replace("\x0c", " ")),
)


@st.composite
def expressions(draw, depth=3):
    kinds = ["plain", "string"] + ["list", "list", "call", "call", "tuple", "dict", "set", "lambda", "for"] * (
        depth > 0
    )
    kind = draw(st.sampled_from(kinds))
    if kind in ("plain", "string"):
        return Piece(draw(PLAIN if kind == "plain" else STRINGS))
    inner = [draw(expressions(depth=depth - 1)) for _ in range(draw(st.integers(0, 4)))]
    inner = [Piece("(") + one + ")" if draw(st.integers(0, 3)) == 0 else one for one in inner]
    gap = lambda: draw(GAPS)  # noqa: E731
    if kind == "call":
        return draw(call(inner, gap))
    if kind == "lambda":
        return Piece("(lambda x, y=") + (inner[0] if inner else "0") + ", *z: (x, y))"
    if kind == "for":
        return Piece("[") + (inner[0] if inner else "x") + " for x, y in z if x]"
    if kind == "dict":
        return Piece("{") + sum_of(Piece("1: ") + one + "," for one in inner) + "}"
    opening, closing = {"list": "[]", "tuple": "()", "set": "{}"}[kind]
    if kind != "list":
        return Piece(opening) + sum_of(one + "," + gap() for one in inner) + closing
    made = Piece("[") + gap()
    for i, one in enumerate(inner):
        made = made + ("*" if draw(st.integers(0, 5)) == 0 and not one.text.startswith("not") else "") + one + gap()
        made = (made + ",").comma_here() + gap() if i + 1 < len(inner) else made
    return made + ("," + gap() if inner and draw(st.booleans()) else "") + "]"


@st.composite
def call(draw, inner, gap):
    name = draw(st.sampled_from(list(PARAMETERS)))
    known = list(PARAMETERS[name])
    made = Piece(draw(st.sampled_from([name, f"({name})"])) + draw(st.sampled_from(["", " "])) + "(")
    if len(inner) == 1 and draw(st.integers(0, 3)) == 0:  # a generator has the brackets of the call
        made = made.site_here(known[0]) if known else made
        return made + gap() + "x for x in " + (Piece("(") + inner[0] + ")") + ")"
    stop = False
    for i, one in enumerate(inner):
        made = made + ("," if i else "")
        written = draw(st.sampled_from(["", "", "", "*", "k=" if i == len(inner) - 1 else ""]))
        stop = stop or written == "*"
        if not written and not stop and i < len(known):
            made = made.site_here(known[i])
        made = made + gap() + (written.replace("k=", f"k{i}=") + ("(" if written == "*" else "")) + one
        made = made + (")" if written == "*" else "") + gap()
    return made + ("," if inner and draw(st.booleans()) else "") + ")"


def sum_of(pieces):
    total = Piece()
    for piece in pieces:
        total = total + piece
    return total


@st.composite
def modules(draw):
    made = Piece(DEFINED)
    for _ in range(draw(st.integers(1, 3))):
        value = draw(expressions())
        shape = draw(st.sampled_from(range(4)))
        if shape == 0:
            made = made + "x = " + (value if "\n" not in value.text else Piece("(") + value + ")") + "  # a, b\n"
        elif shape == 1:
            made = made + "@deco(" + value + ")\ndef g(y, z=(" + draw(expressions(depth=1)) + "), *k):\n\treturn y, z\n"
        elif shape == 2:
            made = made + "if x:\n\twith x as y, (" + value + "):\n\t\tdel x, y\n"
        else:
            made = made + 'class C(x, metaclass=y):\n    """a, [b, c]"""\n    def f(self, a): return (' + value + ")\n"
    return made


SETTINGS = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@given(modules())
@SETTINGS
def test_every_comma_and_argument_that_was_put_in_is_found_and_none_other(made):
    found, sites = commas(made.text), calls(made.text)
    assert found["end"].tolist() == made.commas
    assert list(zip(sites["end"], sites["parameter"], strict=True)) == made.sites
    assert all(made.text[end - 1] == "," for end in found["end"])
    for row in sites.itertuples():
        assert made.text[row.end - 1] == ("," if row.index else "(")
        ast.parse(f"g({row.argument})")  # what is written there is an argument, whole
        assert made.text.find(row.argument, row.end) >= row.end


@pytest.fixture(scope="module", params=["bytes", "metaspace", "embedded"])
def reader(request, tokenizer_of):
    """A model of which only the tokenizer is asked."""
    if request.param == "embedded":
        return request.getfixturevalue("embedded_lm")
    tokenizer = tokenizer_of(request.param, request.param == "metaspace", True, "right")
    lm = object.__new__(sh.LanguageModel)
    lm.tokenizer, lm.spec = tokenizer, sh.ModelSpec(request.param, "here")
    return lm


@given(made=modules())
@SETTINGS
def test_the_token_at_a_place_ends_where_the_place_does(reader, made):
    ends = sorted({*made.commas, *(end for end, _ in made.sites)})
    ids = reader.token_ids(made.text)[0]
    special = next((i for i, token in enumerate(ids) if token not in reader.tokenizer.all_special_ids), 0)
    found = tokens_at(reader, made.text, ends)
    assert len(found) == len(ends)

    def up_to(at):
        text = reader.tokenizer.decode(ids[special : at + 1], clean_up_tokenization_spaces=False)
        return text.removeprefix(" ")

    for end, at in zip(ends, found, strict=True):
        if at is not None:
            assert up_to(at) == made.text[:end]
        else:  # there is none, and not for want of looking
            assert made.text[:end] not in {up_to(k) for k in range(special, len(ids))}


@given(modules())
@SETTINGS
def test_without_docstrings_a_program_means_the_same(made):
    source = f'"""Of the module, [a, b].\n变 """\n{made.text}\ndef h(x):\n    """Of h."""\n\n    return [x, x]\n'
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            del node.body[0]
    left = without_docstrings(source)
    assert ast.dump(ast.parse(left)) == ast.dump(tree)
    assert "Of the module" not in left
    assert len(commas(left)) == len(made.commas) + 1
    assert without_docstrings(left) == left


CASES = {
    "[1, 2, 3]": [3, 6],
    "[1, 2, 3,]": [3, 6],
    "[1]": [],
    "[]": [],
    "(1, 2), {1, 2}, {1: 2, 3: 4}, x[1, 2]": [],
    "[(1, 2), 3]": [8],
    "[[1, 2], [3, 4]]": [4, 8, 12],
    "['a, b', \"[1, 2]\", '''x,\ny''']": [8, 18],
    "[1,  # two, three\n 2]": [3],
    "[1, # [\n\n\t2, \\\n 3]": [3, 12],
    "[f'{[1, 2]}, {x}', f'{x, y}']": [18],
    "[é, 'ñ, ü', '🐍🐍', 变]": [3, 11, 17],
    "x = '🐍'; y = ['é', 2]": [18],
    "[(a), ((b)), (c)]": [5, 12],
    "[*a, *b]": [4],
    "[lambda a, b: 0, (yield)]": [16],
    "[x for x, y in z]": [],
    "[f(a, b), g(c)]": [9],
    "[a if b else c, a or b, a, ]": [15, 23],
    "@d([a, b])\ndef f(x=[c, d], *y, z): pass": [6, 22],
    "def f() -> Dict[str, List[int]]: pass": [],
    "a, b = [c, d]": [10],
    "[a, b] = c": [3],
    "'\u2028'; ['\u2028', 1]": [10],
}


@pytest.mark.parametrize("source", CASES)
def test_commas_of_list_literals(source):
    assert commas(source)["end"].tolist() == CASES[source]


def test_a_comma_comes_with_its_neighbours():
    assert commas("[1, (a),\n f(x, y)]")[["before", "after"]].to_numpy().tolist() == [["1", "a"], ["a", "f(x, y)"]]


def sites(source):
    return [(row.function, row.parameter, row.argument) for row in calls(source).itertuples()]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("len(x)", [("len", "obj", "x")]),
        ("len ( # (\n x)", [("len", "obj", "x")]),
        ("(len)(x)", [("len", "obj", "x")]),
        ("round((x), ((2)))", [("round", "number", "x"), ("round", "ndigits", "2")]),
        ("round(number=x, ndigits=2)", []),
        ("round(x, ndigits=2)", [("round", "number", "x")]),
        ("round(*x, 2)", []),
        ("round(x, *y)", [("round", "number", "x")]),
        ("len(**x)", []),
        ("round('(,', f'{len(x), 1}')", [("round", "number", "'(,'"), ("round", "ndigits", "f'{len(x), 1}'")]),
        ("sum(x for x in y)", [("sum", "iterable", "x for x in y")]),
        ("sum((x for x in y))", [("sum", "iterable", "(x for x in y)")]),
        ("len(sorted(x))", [("len", "obj", "sorted(x)"), ("sorted", "iterable", "x")]),
        ("range(1), max(1, 2), min(x), dict(x), zip(x), type(x), print(x), map(f, x), int(x)", []),
        ("def f(a, b): pass\nf(1, 2)", [("f", "a", "1"), ("f", "b", "2")]),
        ("def f(a, /, b, *c, d): pass\nf(1, 2, 3, 4)", [("f", "a", "1"), ("f", "b", "2")]),
        ("async def f(a): pass\nf(1)", [("f", "a", "1")]),
        ("def f(a, b): pass\nf(1, 2, 3)", [("f", "a", "1"), ("f", "b", "2")]),
        ("def f(a, b, c): pass\nf(1, 2, 3)", [("f", "a", "1"), ("f", "b", "2"), ("f", "c", "3")]),
        ("def f(a): return f(a - 1)", [("f", "a", "a - 1")]),
        ("@d\ndef f(a): pass\nf(1)", []),
        ("def f(a): pass\ndef f(b): pass\nf(1)", []),
        ("def f(a): pass\nf = g\nf(1)", []),
        ("def g(f):\n def f(a): pass\n f(1)", []),
        ("class C:\n def f(self, a): pass\nf(1)\nx.f(1)", []),
        ("class f: pass\ndef f(a): pass\nf(1)", []),
        ("def len(y): pass\nlen(1)", [("len", "y", "1")]),
        ("len = 3\nlen(1)", []),
        ("import sorted\nsorted(1)", []),
        ("from x import y as sorted\nsorted(1)", []),
        ("for sum in x: sum(1)", []),
        ("def f(len): len(1)", []),
        ("try: pass\nexcept E as sum: sum(1)", []),
        ("@len(x)\ndef f(a=len(y)): pass", [("len", "obj", "x"), ("len", "obj", "y")]),
        ("'é🐍', len('ñ'), len(变)", [("len", "obj", "'ñ'"), ("len", "obj", "变")]),
        ("def f(x, y): pass\nf(x\n  ,\ty)", [("f", "x", "x"), ("f", "y", "y")]),
    ],
)
def test_arguments_whose_parameter_has_a_name(source, found):
    assert sites(source) == found


def test_a_site_says_which_parameters_it_is_not():
    frame = calls("def f(a, b, c): pass\nf(1, 2)\nlen(x)")
    assert frame["others"].tolist() == [("b", "c"), ("a", "c"), ()]
    assert frame["builtin"].tolist() == [False, False, True]
    assert frame["index"].tolist() == [0, 1, 0]


def test_the_names_of_the_built_in_parameters_are_python_s_own():
    checked = 0
    for name, ours in places._BUILTINS.items():
        try:
            own = inspect.signature(getattr(builtins, name)).parameters.values()
        except ValueError:
            continue
        positional = [p.name for p in own if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        if positional:  # in some versions a signature is (*args)
            assert positional[: len(ours.split())] == ours.split(), name
            checked += 1
    assert checked > 25
    assert not {"range", "max", "min", "dict", "zip", "type", "print"} & places._BUILTINS.keys()


def test_each_argument_has_a_place_of_its_own():
    source = "def f(a, b, c): pass\nf([1, 2], 3, (4, 5))"
    assert [source[end:].strip() for end in calls(source)["end"]] == ["[1, 2], 3, (4, 5))", "3, (4, 5))", "(4, 5))"]


def test_operators_of_a_kind_and_none_in_strings():
    source = "x = f(a == b, c='=,')  # =\ny = f'{a, b=}'\n"
    assert [source[end - 1 :][:1] for end in operators(source, ["="])] == ["=", "=", "="]
    assert operators(source, ["=", ","]) == [3, 13, 16, 30]
    assert operators(source, ["("]) == [6]
    assert operators("for x in y:  # in\n    return_ = 'in' in x.index\n", ["in", "return"]) == [8, 39]


@pytest.mark.parametrize("call", [commas, calls, without_docstrings, lambda source: operators(source, [","])])
def test_what_is_no_program_is_refused(call):
    with pytest.raises(SyntaxError):
        call("[1, 2")
    with pytest.raises(ValueError, match=r'the source has "\\r" at the ends of lines: give source.replace'):
        call("[1,\r\n 2]")


def test_an_empty_program_has_no_places():
    for frame in (commas(""), calls("")):
        assert len(frame) == 0
        assert frame["end"].dtype == int
    assert without_docstrings("") == ""


@pytest.mark.parametrize(
    ("source", "left"),
    [
        ('"""doc"""\nx = 1\n', "x = 1\n"),
        ('def f():\n    """doc\n    more"""\n    return 1\n', "def f():\n    return 1\n"),
        ('def f():\n    """doc"""\n', 'def f():\n    """doc"""\n'),
        ('def f(): "doc"; return 1\n', 'def f(): "doc"; return 1\n'),
        ('def f():\n    "doc"  # why\n    return 1\n', 'def f():\n    "doc"  # why\n    return 1\n'),
        ('def f():\n    import x\n    """no doc"""\n    return 1\n', "def f():\n    import x\n    return 1\n"),
        (
            'class C:\n    "é"\n    x = "y"\n\n    def f(self):\n        "doc"\n        pass',
            'class C:\n    x = "y"\n\n    def f(self):\n        pass',
        ),
        ("def f():\n    x = '''no'''\n    return x", "def f():\n    x = '''no'''\n    return x"),
    ],
)
def test_docstrings_are_taken_out_line_by_line(source, left):
    assert without_docstrings(source) == left


def merging(lm_of, *extra, trim=False):
    """A tokenizer with single bytes and a few longer tokens, whose offsets may leave out the blanks at the ends."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: i for i, letter in enumerate(alphabet)}
    written = [token.replace(" ", "Ġ").replace("\n", "Ċ") for token in extra]
    vocabulary |= {token: len(alphabet) + i for i, token in enumerate(written)}
    inner = Tokenizer(models.BPE(vocabulary, [(token[0], token[1:]) for token in written]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.post_processor = processors.ByteLevel(trim_offsets=trim)
    return lm_of(inner)


@pytest.fixture
def lm_of():
    from transformers import PreTrainedTokenizerFast

    def make(inner):
        lm = object.__new__(sh.LanguageModel)
        lm.tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner)
        lm.spec = sh.ModelSpec("merging", "here")
        return lm

    return make


@pytest.mark.parametrize("trim", [False, True])
def test_a_token_that_goes_past_the_place_is_none(lm_of, trim):
    source = "f([1,2],\n[3, 4],5)"
    ends = [2, 5, 8, 12, 16]
    single = tokens_at(merging(lm_of), source, ends)
    assert single == [1, 4, 7, 11, 15]  # one byte, one token: the token of the character itself
    # "([", ",\n" and ", " know more than the place does; "]," ends with it.
    some = tokens_at(merging(lm_of, "([", ",\n", ", ", "],", trim=trim), source, ends)
    assert some == [None, 3, None, None, 11]


def test_a_letter_of_several_tokens_does_not_hide_the_comma(lm_of):
    lm = merging(lm_of, "\u0120\u012c")
    source = "['é','🐍','语',1]"
    assert tokens_at(lm, source, commas(source)["end"].tolist()) == [5, 12, 18]


def test_offsets_that_are_no_places_are_refused(lm_of):
    lm = merging(lm_of)
    for end in (0, -1, 4, 9):
        with pytest.raises(ValueError, match=rf"end is {end}: give offsets of 1 to 8, each behind a character"):
            tokens_at(lm, "[1,\n 23]", [2, end])
    assert tokens_at(lm, "[1, 2]", []) == []


def test_a_tokenizer_without_offsets_is_refused(lm_of, monkeypatch):
    lm = merging(lm_of)
    monkeypatch.setattr(type(lm.tokenizer), "is_fast", False)
    with pytest.raises(ValueError, match="the tokenizer of merging gives no offsets: load its fast one"):
        tokens_at(lm, "[1, 2]", [3])


@pytest.fixture(scope="module")
def table():
    return humaneval()


def test_humaneval_is_whole(table):
    assert table.index.tolist() == list(range(164))
    assert list(table.columns) == ["name", "program", "code", "docstring", "tests"]
    assert table["name"].iloc[0] == "has_close_elements"
    assert (table["docstring"] != "").all()
    assert not table["docstring"].str.contains(">>>").any()
    assert not table["tests"].str.contains("METADATA").any()
    assert table["tests"].str.contains("def check(candidate):", regex=False).all()


def test_the_programs_of_humaneval_have_their_places(table):
    pieces = [*table["code"], *table["tests"]]
    assert sum(len(commas(source)) for source in pieces) > 2_500
    assert sum(len(calls(source)) for source in table["code"]) > 250
    for source in pieces:
        assert all(source[end - 1] == "," for end in commas(source)["end"])
        assert all(source[end - 1] in "(," for end in calls(source)["end"])
        assert "\r" not in source
    for program, code in zip(table["program"], table["code"], strict=True):
        assert len(code) <= len(program)
        assert ast.unparse(ast.parse(code)).count("def ") == ast.unparse(ast.parse(program)).count("def ")


@pytest.fixture
def copy(tmp_path):
    frame = pd.DataFrame(
        {
            "task_id": [11, 12],
            "text": ["Add two.", "Sort."],
            "code": ["def add(a, b):\r\n  return a+b", "def s(x):\n  return sorted(x)"],
            "test_list": [["assert add(1, 2) == 3", "assert add(0, 0) == 0"], ["assert s([2, 1]) == [1, 2]"]],
            "challenge_test_list": [[], []],
        }
    )
    (tmp_path / "full").mkdir()
    frame.to_parquet(tmp_path / "full" / "test-00000-of-00001.parquet")
    return tmp_path


def test_mbpp_is_read_from_a_folder(copy):
    for folder in (copy, str(copy)):
        frame = mbpp(folder=folder)
        assert frame.index.tolist() == [11, 12]
        assert frame.loc[11].tolist() == [
            "def add(a, b):\n  return a+b",
            "Add two.",
            "assert add(1, 2) == 3\nassert add(0, 0) == 0",
        ]
        assert len(commas(frame.loc[12, "tests"])) == 2
    with pytest.raises(FileNotFoundError, match=r"full/train-00000-of-00001.parquet is not there: download google-res"):
        mbpp("train", copy)
    with pytest.raises(ValueError, match="split is 'dev': MBPP has 'train', 'validation', 'test' and 'prompt'"):
        mbpp("dev", copy)


def test_mbpp_is_had_from_the_hub_by_its_name_there(copy, monkeypatch):
    def download(repo, name, repo_type):
        assert (repo, repo_type) == ("google-research-datasets/mbpp", "dataset")
        return str(copy / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert len(mbpp()) == 2


@pytest.mark.parametrize("kind", [LocalEntryNotFoundError, RepositoryNotFoundError, OSError])
def test_a_hub_that_gives_nothing_says_what_to_do(monkeypatch, kind):
    error = kind.__new__(kind)

    def fail(*names, **more):
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(RuntimeError, match=rf"\({kind.__name__}\): check the network, or give `folder` with a copy"):
        mbpp()


def test_the_public_names_are_those_of_data():
    assert data.commas is commas
    assert data.tokens_at is tokens_at
