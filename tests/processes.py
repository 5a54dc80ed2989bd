"""What the processes of `test_parallel.py` run, started by torchrun: `python processes.py WORK FOLDER OUT`.

Each saves what it found as OUT/NAME-RANK.pt, for the test to hold against what one process finds.
"""

import os
import signal
import sys
import time
from pathlib import Path

import torch

import semhub_utils as sh
from semhub_utils import parallel

TEXTS = ["The dog and the cat see a bird in the water.", "法国的首都是", "El perro", "Собака и кошка видят птицу"]
WORDS = (["dog", "bird"], ["gato", "Hund"])
RANK = int(os.environ.get("RANK", 0))


def everything(lm, keep=None):
    """What the public calls give on a model, by name; random numbers are drawn by this process's own seed."""
    torch.manual_seed(RANK)
    texts, found = pictured(TEXTS) if "image" in lm.spec.takes else TEXTS, {}
    found["states"] = sh.hidden_states(lm, texts)
    with sh.edit(lm, 2, lambda state: state + torch.randn(state.shape)), sh.record(lm) as states:
        lm(texts)
    found |= {f"recorded {k}": state for k, state in states.items()}
    found["logits"] = lm(texts, logits_to_keep=1).logits
    targets = {"a": " dog", "b": "狗", "last": lm.model.config.get_text_config().vocab_size - 1}
    for norm in ("final", "none"):
        found[f"lens {norm}"] = sh.logit_lens(lm, texts, targets, "all", norm, batch_size=3)
        found[f"top {norm}"] = sh.top_tokens(lm, texts[0], 4, norm=norm)
    found["some logits"] = sh.lens_logits(lm, found["states"], torch.tensor([[[5, 7], [300, -1]]]))
    found["log-odds"] = sh.log_odds(lm, texts, *WORDS)
    found["loss"] = sh.log_loss(lm, texts, [" in the water"] * len(texts))
    if lm.spec.name == "gemma3":  # the word lists take longest, and the reading is the same for all
        found["mass"] = sh.language_mass(lm, texts, ["en"], shuffles=20)
    found["words"] = sh.picture_lens.word_scores(lm, texts, ["dog", "gato"], "last")
    vectors = {how: sh.steering_vector(lm, ["the dog", "a day"], ["the cat"], 3, how) for how in ("activation",)}
    vectors["unembedding"] = sh.steering_vector(lm, WORDS[0], ["the cat"], 2, "unembedding")
    found |= {name: vector.direction for name, vector in vectors.items()}
    with sh.steer(lm, vectors["activation"], 0.5):
        found["steered"] = lm(texts, logits_to_keep=1).logits
        found["greedy"] = lm.generate(texts, max_new_tokens=4)
        found["sampled"] = lm.generate(texts, max_new_tokens=4, temperature=1.0, seed=3)
    how = dict(words=WORDS, max_new_tokens=3, batch_size=3, keep=keep)
    found["sweep"] = sh.sweep(lm, vectors, texts, [-0.5, 0.0, 0.5], **how)
    return found


def pictured(texts):
    """The texts, the first of them about a picture."""
    return [sh.Example(f"<image>{texts[0]}", Path(__file__).parents[1] / "book/_static/words-meet.png"), *texts[1:]]


def sweep(lm, keep=None, seeds=(0, 1)):
    """A sweep of many parts, with continuations that are drawn."""
    vectors = {str(k): sh.steering_vector(lm, ["the dog", "a day"], ["the cat", "a bird"], k) for k in (1, 3)}
    how = dict(words=WORDS, max_new_tokens=4, temperature=1.0, seeds=seeds, batch_size=3, keep=keep, progress=True)
    return sh.sweep(lm, vectors, TEXTS, [-0.5, 0.0, 0.5], **how)


def counted(call):
    """What `call` returns, and how many batches this process continued for it."""
    batches = []
    plain = sh.LanguageModel.generate
    sh.LanguageModel.generate = lambda self, texts, **how: batches.append(1) or plain(self, texts, **how)
    try:
        return call(), len(batches)
    finally:
        sh.LanguageModel.generate = plain


def fails_after(limit, act):
    """From now on `act()` takes the place of every continuation after so many."""
    done = []
    plain = sh.LanguageModel.generate

    def generate(self, texts, **how):
        done.append(1)
        return act() if len(done) > limit else plain(self, texts, **how)

    sh.LanguageModel.generate = generate
    return plain


def shared(folder, out):
    """The calls on models whose weights the two processes share."""
    for path in sorted(folder.iterdir()):
        lm = sh.load(str(path), tensor_parallel=True)
        assert parallel.shares_weights(lm.model), f"{path.name} is whole in each process"
        held = sum(p.to_local().numel() if hasattr(p, "to_local") else p.numel() for p in lm.model.parameters())
        found = everything(lm, out / f"{path.name}.jsonl")
        mine = torch.arange(14.0).view(7, 2)[4 * RANK : 4 + 4 * RANK]  # as a plain tensor: four rows, and three
        more = {"numbers held": held, "rows": parallel.gathered(lm.model, mine, 7)}
        torch.save(found | more, out / f"{path.name}-{RANK}.pt")


def divided(folder, out):
    """A sweep that the processes divide: one that fails in one of them, two that differ, one that goes well.

    Last the same, in which one process is killed while the other waits for what does not come.
    """
    lm = sh.load(str(folder))
    said = {}

    def fail():
        raise OSError("the second process has no more")

    plain = fails_after(2, fail if RANK else lambda: ["x"] * 3)
    for name, call in {"failed": lambda: sweep(lm), "different": lambda: sweep(lm, seeds=(RANK,))}.items():
        try:
            call()
        except Exception as error:
            said[name] = f"{type(error).__name__}: {error}"
        sh.LanguageModel.generate = plain
    frame, batches = counted(lambda: sweep(lm, out / "whole.jsonl"))
    torch.save({"frame": frame, "batches": batches, **said}, out / f"divided-{RANK}.pt")
    fails_after(2, (lambda: os.kill(os.getpid(), signal.SIGKILL)) if RANK else (lambda: time.sleep(300)))
    sweep(lm, out / "killed.jsonl")


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"shared": shared, "divided": divided}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
