"""Places in Python programs that the book asks about: commas of list literals, arguments of calls; and their tokens.

A place is the character behind it: the `end` of a comma is where what follows begins. `ast` says what the source means
and counts columns in bytes of UTF-8; `tokenize` says where a comma stands and counts characters. Both become offsets in
characters here, which `tokens_at` turns into the tokens of a model.
"""

import ast
import io
import keyword
import re
import tokenize
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

import pandas as pd

from semhub_utils.language_model import LanguageModel

# The positional parameters of the built-in functions that have names of their own, as `help` gives them. range, max,
# min, dict, zip and type are left out, as in the paper: what they take has no one name.
_BUILTINS = {
    **dict.fromkeys(("all", "any", "list", "set", "tuple", "frozenset", "sorted"), "iterable"),
    **dict.fromkeys(("ascii", "callable", "hash", "id", "len", "repr"), "obj"),
    **{"abs": "x", "bin": "number", "hex": "number", "oct": "number"},
    **{"chr": "i", "ord": "c", "reversed": "sequence", "str": "object", "bool": "object", "divmod": "x y"},
    **{"enumerate": "iterable start", "filter": "function iterable", "format": "value format_spec"},
    **{"isinstance": "obj class_or_tuple", "issubclass": "cls class_or_tuple", "iter": "object sentinel"},
    **{"next": "iterator default", "open": "file mode", "pow": "base exp mod", "round": "number ndigits"},
    **{"sum": "iterable start", "getattr": "object name default", "hasattr": "obj name", "complex": "real imag"},
    **{"setattr": "obj name value", "delattr": "obj name", "eval": "source globals locals", "input": "prompt"},
}


def commas(source: str) -> pd.DataFrame:
    """The commas between two elements of a list literal, in the order of the source.

    A comma that ends a list, one in a string or a comment, and everything inside an f-string (where Python 3.11 does
    not say what stands where) are none.

    Args:
        source: a program with "\\n" at the ends of its lines.

    Returns:
        A frame with `end` (the offset behind the comma), `before` and `after` (the elements as they are written).

    Raises:
        SyntaxError: if it is no Python.
        ValueError: for a source with other ends of lines.
    """
    tree = _parse(source)
    text = _Text(source)
    rows = []
    for node in _nodes(tree):
        for one, other in pairwise(node.elts if isinstance(node, ast.List) else []):
            rows.append((text.comma(one, other), text.of(one), text.of(other)))
    return pd.DataFrame(sorted(rows), columns=["end", "before", "after"]).astype({"end": int})


def calls(source: str) -> pd.DataFrame:
    """Where an argument of a call is about to be written whose parameter has a name.

    The place is the "(" before the first argument, or the comma before another. The name is known for the built-in
    functions of a small table (range, max, min, dict, zip and type left out, as in the paper) and for functions that
    the program defines once, undecorated. A name that the program gives to anything else besides is left out, and so
    are keyword arguments, which have their name written out, starred ones and what follows them, methods, and
    everything inside an f-string.

    Args:
        source: a program with "\\n" at the ends of its lines.

    Returns:
        A frame with `end` (the offset behind the bracket or comma), `function`, `builtin` (whether it is), `index` (of
        the parameter), `parameter` (its name), `others` (the names of the other positional parameters, a tuple) and
        `argument` (what is written there).

    Raises:
        SyntaxError, ValueError: as `commas` does.
    """
    tree = _parse(source)
    text = _Text(source)
    known = _parameters(tree)
    rows = []
    for node in _nodes(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in known:
            continue
        names, builtin = known[node.func.id]
        for index, (name, argument) in enumerate(zip(names, node.args, strict=False)):
            if isinstance(argument, ast.Starred):
                break
            end = text.comma(node.args[index - 1], argument) if index else text.bracket(node.func)
            others = tuple(other for other in names if other != name)
            rows.append((end, node.func.id, builtin, index, name, others, text.of(argument, end)))
    columns = ["end", "function", "builtin", "index", "parameter", "others", "argument"]
    return pd.DataFrame(sorted(rows), columns=columns).astype({"end": int, "builtin": bool, "index": int})


def operators(source: str, kinds: Sequence[str]) -> list[int]:
    """The offsets behind every operator, bracket or keyword of some kinds, such as "=", "," or "in".

    What stands in strings, f-strings and comments is none.

    Raises:
        SyntaxError, ValueError: as `commas` does.
    """
    _parse(source)
    return [end for kind, end in _Text(source).marks if kind in kinds]


def tokens_at(lm: LanguageModel, source: str, ends: Sequence[int]) -> list[int | None]:
    """The token that ends where a place does: its position among `lm.token_ids(source)[0]`.

    It is the last token with a character before `end` and none behind it. There may be none: a tokenizer may have a
    token for "([" or for "," with a line break, which knows more than the place does. The offsets that tokenizers give
    leave out blanks at the ends of some tokens, so that the text of the token is compared too.

    Args:
        lm: the model whose tokens are meant.
        source: a text.
        ends: offsets in characters, each behind a character that is no blank.

    Returns:
        For each of `ends` a position, or None where a token goes past it.

    Raises:
        ValueError: for an offset outside the text or behind a blank, or a tokenizer that does not give offsets.
    """
    for end in ends:
        if not 0 < end <= len(source) or source[end - 1].isspace():
            raise ValueError(f"end is {end}: give offsets of 1 to {len(source)}, each behind a character, not a blank")
    if not lm.tokenizer.is_fast:
        raise ValueError(f"the tokenizer of {lm.spec.name} gives no offsets: load its fast one (use_fast=True)")
    spans = lm.tokenizer(source, return_offsets_mapping=True).offset_mapping
    last = {end: i for i, (start, end) in enumerate(spans) if start < end}
    found = [last.get(end) for end in ends]
    ids = lm.token_ids(source)[0]
    texts = lm.token_text([ids[at] for at in found if at is not None])
    # A part of a letter, as byte-level tokenizers have them, reads as "\ufffd".
    tails = iter(text.lstrip("\ufffd \t\n") for text in texts)
    return [
        at if at is not None and (tail := next(tails)) and source[:end].endswith(tail) else None
        for at, end in zip(found, ends, strict=True)
    ]


def without_docstrings(source: str) -> str:
    """A program without its docstrings, and without other statements that are a string; all else stays as it was.

    A string that shares a line with something else stays too, and so does one that is all that a function does.

    Raises:
        SyntaxError, ValueError: as `commas` does.
    """
    tree = _parse(source)
    text = _Text(source)
    gone: set[int] = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        strings = [statement for statement in node.body if string_of(statement) is not None]
        for statement in strings if len(strings) < len(node.body) else []:
            start, end = text.span(statement)
            beside = source[:start].rpartition("\n")[2] + source[end:].partition("\n")[0]
            if not beside.strip():
                gone.update(range(statement.lineno, (statement.end_lineno or statement.lineno) + 1))
    return "".join(line for number, line in enumerate(text.lines, 1) if number not in gone)


class _Text:
    """A source whose nodes and marks have offsets in characters."""

    def __init__(self, source: str):
        self.source = source
        self.lines = re.findall(r"[^\n]*\n|[^\n]+$", source)  # as Python counts them: str.splitlines has other ends too
        self._bytes = [line.encode() for line in self.lines]
        self._starts = [0, *accumulate(map(len, self.lines))]
        self.marks = list(self._marks())

    def _marks(self) -> Iterator[tuple[str, int]]:
        """Operators, brackets and keywords, with the offsets behind them."""
        inside = 0  # f-strings: from Python 3.12 on their insides are tokens
        for token in tokenize.generate_tokens(io.StringIO(self.source).readline):
            name = tokenize.tok_name[token.type]
            inside += {"FSTRING_START": 1, "FSTRING_END": -1}.get(name, 0)
            if (token.type == tokenize.OP or keyword.iskeyword(token.string)) and not inside:
                yield token.string, self._starts[token.end[0] - 1] + token.end[1]

    def span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        """Where a node begins and ends."""
        ends = [(node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0)]
        # `ast` counts bytes.
        start, end = (self._starts[row - 1] + len(self._bytes[row - 1][:column].decode()) for row, column in ends)
        return start, end

    def of(self, node: ast.expr, begins: int = 0) -> str:
        """What is written; a generator that is a call's only argument has the brackets of the call in its span."""
        start, end = self.span(node)
        return self.source[start:end] if start >= begins else self.source[begins : end - 1].strip()

    def comma(self, one: ast.expr, other: ast.expr) -> int:
        """The offset behind the comma between two neighbours: they may stand in brackets, which are no part of them."""
        low, high = self.span(one)[1], self.span(other)[0]
        return next(end for mark, end in self.marks if mark == "," and low < end <= high)

    def bracket(self, function: ast.expr) -> int:
        """The offset behind the bracket that opens a call: of `(f)(x)` the second one."""
        low = self.span(function)[1]
        return next(end for mark, end in self.marks if mark == "(" and end > low)


def _parse(source: str) -> ast.Module:
    if "\r" in source:
        raise ValueError('the source has "\\r" at the ends of lines: give source.replace("\\r\\n", "\\n")')
    return ast.parse(source)


def _nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Every node but those inside an f-string."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.JoinedStr):
            yield from _nodes(child)


def _parameters(tree: ast.Module) -> dict[str, tuple[list[str], bool]]:
    """The positional parameters of each function whose name means one thing, and whether it is built in."""
    in_classes = {id(child) for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for child in node.body}
    defined = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and id(node) not in in_classes
    ]
    given = Counter(node.name for node in defined)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            given[node.id] += 1
        elif isinstance(node, ast.arg):
            given[node.arg] += 1
        elif isinstance(node, ast.alias):
            given[(node.asname or node.name).partition(".")[0]] += 1
        elif isinstance(node, ast.ClassDef | ast.ExceptHandler):
            given[node.name or ""] += 1
    known = {name: (names.split(), True) for name, names in _BUILTINS.items() if not given[name]}
    for node in defined:
        if given[node.name] == 1 and not node.decorator_list:
            known[node.name] = ([a.arg for a in (*node.args.posonlyargs, *node.args.args)], False)
    return known


def string_of(statement: ast.stmt) -> str | None:
    """The text of a statement that is a string and nothing else."""
    value = statement.value if isinstance(statement, ast.Expr) else None
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None
