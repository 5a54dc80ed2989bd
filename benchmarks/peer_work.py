"""One way of doing one piece of work, measured: the child's side of peers.py, run in that way's own environment.

Needs nothing of this project but the way "ours"; a job file holds all that is given.
"""

import importlib
import importlib.metadata
import inspect
import json
import sys
import tempfile
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import torch

from ways_here import Bare, Ours, Reference
from ways_peers import NNsight, NNterp, TransformerLens

LONG = 20  # seconds of work that are enough for one process
WAYS = {
    "bare": Bare,
    "ours": Ours,
    "nnsight": NNsight,
    "nnterp": NNterp,
    "TransformerLens": TransformerLens,
    "reference": Reference,
}


def done(way, name, batches):
    """A piece of work run to its end: `lens` yields batch by batch, so that no more is kept than its scores."""
    with torch.no_grad():
        result = getattr(way, name)(batches)
        return list(result) if inspect.isgenerator(result) else result


def in_order(name, result, batches):
    """A result in the one form that all are compared in; None where there is none to compare."""
    if result is None:
        return None
    if name == "states":
        return {"states": torch.cat(result)}
    if name == "lens":
        return {part: torch.cat([one[i] for one in result], 1) for i, part in enumerate(("logprob", "rank"))}
    return {"ids": result[:, batches[0]["input_ids"].shape[1] :].cpu()}


def few(batches):
    """A little of the work, to warm up with: two texts of the last batch."""
    return [{name: value[:2] for name, value in batches[-1].items()}]


def measured(job, way, name, measure):
    """Seconds or peak bytes above the loaded model, and the result.

    Short work is done up to three times, and the best time counts. On a CPU memray counts every allocation, torch's
    and Python's, and slows the work: it is asked for apart. On a GPU torch counts its own, for nothing.
    """
    doer, batches = WAYS[way](job), job["batches"][name]
    doer.hf(**doer.inputs(few(batches)[0]), use_cache=False)  # brings in every weight, the unembedding with them
    done(doer, name, few(batches))
    if job["device"].startswith("cuda"):
        wait, held = torch.cuda.synchronize, torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        seconds, result = timed(lambda: done(doer, name, batches), wait)
        numbers = {"seconds": seconds, "peak": torch.cuda.max_memory_allocated() - held}
    elif measure == "seconds":
        seconds, result = timed(lambda: done(doer, name, batches))
        numbers = {"seconds": seconds}
    else:
        memray = importlib.import_module("memray")  # not on Windows
        with tempfile.TemporaryDirectory() as folder:
            record = Path(folder, "allocations")
            with memray.Tracker(record, file_format=memray.FileFormat.AGGREGATED_ALLOCATIONS):
                result = done(doer, name, batches)
            with memray.FileReader(record) as reader:
                numbers = {"peak": reader.metadata.peak_memory}
    return numbers, in_order(name, result, batches)


def timed(work, wait=lambda: None):
    """The best of up to three times that work takes, of one where it is long, and what it returns."""
    times = []
    while not times or (len(times) < 3 and sum(times) < LONG):
        result = None  # what the last time returned is not to weigh on this one
        wait()
        start = time.perf_counter()
        result = work()
        wait()
        times.append(time.perf_counter() - start)
    return min(times), result


def main():
    """JOB WAY WORK MEASURE [RESULT]: prints the numbers as JSON, and writes the result into a file."""
    given = SimpleNamespace(**dict(zip(("job", "way", "name", "measure", "out"), [*sys.argv[1:], None], strict=False)))
    warnings.filterwarnings("ignore")
    numbers, result = measured(torch.load(given.job), given.way, given.name, given.measure)
    if given.out:
        torch.save(result, given.out)
    versions = {name: importlib.metadata.version(name) for name in WAYS[given.way].packages}
    print(json.dumps(numbers | {"versions": versions, "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
