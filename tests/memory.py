"""The anonymous memory of a fresh process while it does something: what is mapped from a file can be given back."""

import os
import subprocess
import sys

# `most[0]` is the most there was since `before`, in MB; what a script has imported by then is in `before`.
_WATCH = """
import sys, threading, time

def anonymous():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) / 1024

def watch():
    while True:
        most[0] = max(most[0], anonymous())
        time.sleep(0.002)

before = anonymous()
most = [before]
threading.Thread(target=watch, daemon=True).start()
"""


def watched(imports: str, script: str, *arguments: str, seconds: int, **environment: str) -> list[float]:
    """The numbers that a script prints after "MB", with `before`, `most` and `anonymous()` at hand; Linux alone."""
    done = subprocess.run(
        [sys.executable, "-c", imports + _WATCH + script, *arguments],
        capture_output=True,
        text=True,
        timeout=seconds,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment,
    )
    assert "MB" in done.stdout, done.stderr
    return [float(number) for number in done.stdout.split("MB")[1].split()]
