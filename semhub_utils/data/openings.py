"""Beginnings of Python programs that end in `range(`, and what a continuation made of the call.

All of them were written for this book.
"""

import ast
import warnings

# Every opening calls for numbers in a row: an index of a list, a number of rounds, numbers that mean something.
_CHOOSE = [
    "names = load_names()\nfor i in range(",
    "def longest(words):\n    best = words[0]\n    for i in range(",
    "letters = list('semantic')\nfor position in range(",
    "matrix = read_matrix(path)\nfor row in range(",
    "def is_sorted(values):\n    return all(values[i] <= values[i + 1] for i in range(",
    "def bubble(a):\n    n = len(a)\n    for i in range(",
    "import random\nrolls = [random.randint(1, 6) for _ in range(",
    "attempts = 5\nfor attempt in range(",
    "def simulate(steps):\n    x = 0.0\n    for t in range(",
    "board = [[0] * 8 for _ in range(",
    "print('ready')\nfor second in range(",
    "buffer = bytearray()\nfor block in range(",
    "def factorial(n):\n    result = 1\n    for i in range(",
    "def fibonacci(n):\n    a, b = 0, 1\n    for _ in range(",
    "evens = [x for x in range(",
    "total = 0\nfor number in range(",
    "pages = []\nfor page in range(",
    "levels = []\nfor depth in range(",
    "colours = ['red', 'green', 'blue']\nfor c in range(",
    "def checksum(digits):\n    s = 0\n    for i in range(",
]
_JUDGE = [
    "scores = [71, 64, 88, 93]\ntotal = 0\nfor k in range(",
    "def shout(lines):\n    for number in range(",
    "def dot(u, v):\n    return sum(u[j] * v[j] for j in range(",
    "def reverse(items):\n    out = []\n    for i in range(",
    "prices = fetch_prices()\nchanges = [prices[t] for t in range(",
    "queue = []\nfor ticket in range(",
    "def repeat(action, times):\n    for _ in range(",
    "for epoch in range(",
    "threads = [Thread(target=work) for _ in range(",
    "def stars(height):\n    for line in range(",
    "grid = [['.' for x in range(",
    "def average(sampler, n):\n    return sum(sampler() for _ in range(",
    "def is_prime(n):\n    for divisor in range(",
    "squares = [x ** 2 for x in range(",
    "def divisors(n):\n    return [d for d in range(",
    "def harmonic(n):\n    return sum(1 / k for k in range(",
    "def triangle(n):\n    return sum(i for i in range(",
    "for year in range(",
    "def download(urls):\n    for i in range(",
    "def chunks(data, size):\n    for offset in range(",
    "def pascal(rows):\n    triangle = []\n    for r in range(",
    "def transpose(m):\n    return [[row[i] for row in m] for i in range(",
    "seats = {}\nfor seat in range(",
    "weights = init(10)\nfor layer in range(",
    "cities = ['Oslo', 'Lima', 'Cairo']\nfor index in range(",
    "def caesar(text, shift):\n    out = ''\n    for i in range(",
    "def flip(bits):\n    return [1 - bits[b] for b in range(",
    "def throw_dice(dice):\n    return [randint(1, 6) for _ in range(",
    "def zeros(width):\n    return [0 for _ in range(",
    "def knock(door, times):\n    for knock in range(",
    "players = ask_players()\nfor turn in range(",
    "def histogram(counts):\n    for bar in range(",
    "def pairs(keys, values):\n    return {keys[i]: values[i] for i in range(",
    "def walk(steps):\n    x = y = 0\n    for _ in range(",
    "samples = [measure() for _ in range(",
    "def blink(led, n):\n    for _ in range(",
    "rows = open(path).readlines()\nfor line_number in range(",
    "def mirror(image):\n    for y in range(",
    "password = ''.join(choice(letters) for _ in range(",
    "def waves(signal):\n    peaks = []\n    for t in range(",
]


def openings(split: str | None = None) -> list[str]:
    """Beginnings of programs that end just behind the bracket of `range(`, of many kinds.

    Args:
        split: "choose" (20) are there to choose settings on, such as a layer or a strength, "judge" (40) to judge
            the choice; None gives all 60.

    Raises:
        ValueError: for another split.
    """
    if split not in ("choose", "judge", None):
        raise ValueError(f"split is {split!r}: give 'choose', 'judge', or None for both")
    return [*(_CHOOSE if split != "judge" else []), *(_JUDGE if split != "choose" else [])]


def range_arguments(continuation: str) -> list[str] | None:
    """The arguments that a continuation of `range(` writes, by Python's own parser, or None where it closes no call.

    `1, len(words) - 1):` gives `["1", "len(words) - 1"]`. A call with a keyword is none, since `range` takes none; nor
    is one that is cut off before its closing bracket.
    """
    for end in (i + 1 for i, character in enumerate(continuation) if character == ")"):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # such as one for "\d" in a string: the text is the model's, not ours
                call = ast.parse("range(" + continuation[:end], mode="eval").body
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            continue  # a bracket within an argument, or within a string
        if isinstance(call, ast.Call) and not call.keywords:
            return [ast.unparse(argument) for argument in call.args]
        return None
    return None
