"""Measure which language dominates a model, and keep its row for the chapter `origins/which-language-dominates`.

    python tools/dominance_row.py qwen2.5-7b              on the GPUs there are, else on the CPU
    python tools/dominance_row.py bloom-7b1 --n 120       more sentences than the chapter takes
    python tools/dominance_row.py all                     every text model of the book that has no current row

What is kept is a file in `semhub_utils/data/dominance`, with the date, the machine, the versions and a key over the
code, the sentences and the weights that made it. The chapter shows the row, and says so once it is out of date.
"""

import argparse
import sys
import time
from pathlib import Path

import semhub_utils as sh
from semhub_utils import dominance


def row(lm: sh.LanguageModel, n: int, texts: int, shuffles: int, seed: int, folder: Path) -> Path:
    """Measure a loaded model on `n` plain sentences, and write its file into a folder."""
    table = sh.data.sentences(plain=True).sample(n, random_state=seed)
    measured = dominance.measure(lm, table, texts, shuffles, seed)
    settings = {"n": n, "texts": texts, "shuffles": shuffles, "seed": seed}
    return dominance.write(lm, dominance.dominance(measured), settings, folder)


def wanting(folder: Path) -> list[str]:
    """The text models of the book without a current row."""
    listed = [name for name, spec in sh.REGISTRY.items() if spec.takes == ("text",)]
    return [name for name in listed if dominance.read(name, folder)[0] is None]


def main() -> int:
    """Load the models, measure them one by one, and say what was written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a name that sh.load takes, or all")
    parser.add_argument("--quantize", choices=["4bit", "8bit"])
    parser.add_argument(
        "--n", type=int, default=32, help="sentences in each language (32 as in the chapter, at most 120)"
    )
    parser.add_argument("--texts", type=int, default=12, help="of them read by the lens (12 as in the chapter)")
    parser.add_argument("--shuffles", type=int, default=20, help="dealings of the rows of the unembedding")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--to", type=Path, default=dominance.FOLDER, help="the folder for the file")
    given = parser.parse_args()
    failed = 0
    for name in wanting(given.to) if given.model == "all" else [given.model]:
        start = time.time()
        try:
            lm = sh.load(name, quantize=given.quantize)
            path = row(lm, given.n, given.texts, given.shuffles, given.seed, given.to)
            del lm  # before the next one is loaded
        except (OSError, RuntimeError, ValueError, ModuleNotFoundError) as error:
            print(f"{name}: no row. {error}", file=sys.stderr)
            failed += 1
        else:
            print(f"{name}: measured in {time.time() - start:.0f} s, written to {path}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
