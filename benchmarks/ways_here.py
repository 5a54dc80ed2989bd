"""The floor of peers.py, its right answers and our own way: each does the three pieces of work of a job.

A job holds the model, texts as padded batches of token ids, and what is asked:

- states: the residual stream at the last token, the embedding's and after every block, float32 on the CPU
- lens: log-probability and rank of the targets at every layer and every position, over the whole vocabulary
- steer: greedy generation while a vector is added to the output of one block at every position
"""

import importlib
from unittest import mock

import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

# Logits that the bare work holds at one time, as (state, token) pairs: what was fastest, 8 MiB in float32 on a CPU.
PAIRS = {"cpu": 2**21, "cuda": 2**24}


class Bare:
    """The floor: what transformers and torch take for the work itself, nothing kept that is not asked for."""

    packages = ("torch", "transformers")

    def __init__(self, job):
        self.job = job
        torch.manual_seed(0)
        dtype = getattr(torch, job["dtype"])
        if job["folder"]:
            self.hf = AutoModelForCausalLM.from_pretrained(job["folder"], dtype=dtype).to(job["device"])
        else:  # the same seed, torch and device give the same weights in every process
            with torch.device(job["device"]):
                self.hf = AutoModelForCausalLM.from_config(AutoConfig.for_model(**job["config"]), dtype=dtype)
        self.hf.eval()
        self.hf.generation_config.eos_token_id = None  # no text ends early: every way generates as many tokens
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_file=job["tokenizer"], **job["special"])
        self.targets = torch.tensor(job["targets"], device=job["device"])
        self.vector = job["vector"].to(job["device"], dtype)
        self.greedy = {"max_new_tokens": job["new"], "do_sample": False}
        self.wrap()

    def wrap(self):
        """What a peer makes of the model."""

    def inputs(self, batch):
        """The model's inputs of a batch of the job."""
        return {name: batch[name].to(self.job["device"]) for name in ("input_ids", "attention_mask", "position_ids")}

    def prompts(self, batches):
        """The one batch that is generated from; `generate` makes the position ids itself."""
        (batch,) = batches
        return {name: value for name, value in self.inputs(batch).items() if name != "position_ids"}

    def states(self, batches):
        """The blocks alone, nothing kept."""
        for batch in batches:
            self.hf.model(**self.inputs(batch), use_cache=False)

    def lens(self, batches):
        """The blocks, the norm, the product in chunks with its logsumexp, and the ranks counted."""
        head, norm = self.hf.lm_head.weight, self.hf.model.norm
        for batch in batches:
            real = batch["attention_mask"].bool()
            kept = self.hf.model(**self.inputs(batch), output_hidden_states=True, use_cache=False).hidden_states
            flat = torch.cat([*(norm(h[real]) for h in kept[:-1]), kept[-1][real]])
            own, chunk = F.linear(flat, head[self.targets]).float(), max(1, PAIRS[self.job["device"]] // len(flat))
            found = [self.counted(F.linear(flat, part).float(), own) for part in head.split(chunk)]
            total, above = (torch.stack(parts) for parts in zip(*found, strict=True))
            own -= total.logsumexp(0)[:, None]
            shape = (len(kept), -1, own.shape[1])
            yield own.view(shape).cpu(), above.sum(0).view(shape).cpu()

    def steer(self, batches):
        """`model.generate` and no hook; what it says is of another model, so it is not returned."""
        self.hf.generate(**self.prompts(batches), **self.greedy)

    def scored(self, logits):
        """Log-probability and rank of the targets in logits (positions, vocabulary), as a peer gets them.

        A few positions at a time: what is made on the way is then small beside the logits.
        """
        found = [self.counted(part.float(), part[:, self.targets].float()) for part in logits.split(32)]
        total, above = (torch.cat(parts) for parts in zip(*found, strict=True))
        return (logits[:, self.targets].float() - total[:, None]).cpu(), above.cpu()

    def counted(self, logits, own):
        """The logsumexp of logits, and how many of them are above each of `own` (positions, targets)."""
        # As float32 and not as truth values, whose sum takes several times longer; up to 2 ** 24 it is exact.
        higher = torch.empty_like(logits)
        above = [torch.gt(logits, one[:, None], out=higher).sum(1) for one in own.unbind(1)]
        return logits.logsumexp(1), torch.stack(above, 1).long()


class Reference(Bare):
    """The right answers, by plain hooks of torch: what every way is compared with, never timed."""

    def states(self, batches):
        """Every block's output, by a hook on each."""
        layers, rows = self.hf.model.layers, []
        for batch in batches:
            seen = []
            handles = [layers[0].register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0][:, -1]))]
            handles += [
                layer.register_forward_hook(lambda _, __, out, seen=seen: seen.append(out[:, -1])) for layer in layers
            ]
            self.hf.model(**self.inputs(batch), use_cache=False)
            for handle in handles:
                handle.remove()
            rows.append(torch.stack(seen, 1).float().cpu())
        return rows

    def steer(self, batches):
        """`model.generate` with a hook that adds the vector."""
        block = self.hf.model.layers[self.job["layer"] - 1]
        handle = block.register_forward_hook(lambda _, __, out: out + self.vector)
        try:
            return self.hf.generate(**self.prompts(batches), **self.greedy)
        finally:
            handle.remove()


class Ours(Bare):
    """semhub_utils: hidden_states, logit_lens, and steer around generate; it is given texts, and cuts them itself."""

    packages = ("torch", "transformers")

    def wrap(self):
        """Our name for its parts."""
        self.sh = importlib.import_module("semhub_utils")
        self.lm = self.sh.LanguageModel(self.hf, self.tokenizer, self.sh.ModelSpec("model", "peers"))

    def texts(self, batches):
        """The texts of the batches, in their order."""
        return [text for batch in batches for text in batch["texts"]]

    def size(self, batches):
        """Texts a batch."""
        return max(len(batch["texts"]) for batch in batches)

    def states(self, batches):
        """hidden_states."""
        texts, size = self.texts(batches), self.size(batches)
        return [self.sh.hidden_states(self.lm, texts, batch_size=size, progress=False)]

    def lens(self, batches):
        """logit_lens at all positions."""
        targets = {str(i): i for i in self.job["targets"]}
        texts, size = self.texts(batches), self.size(batches)
        frame = self.sh.logit_lens(self.lm, texts, targets, "all", batch_size=size, progress=False)
        shape = (-1, self.lm.n_layers + 1, len(targets))
        yield tuple(torch.tensor(frame[name].to_numpy()).view(shape).transpose(0, 1) for name in ("logprob", "rank"))

    def steer(self, batches):
        """`with steer(...): lm.generate(...)`; the ids are taken where transformers hands them to us."""
        vector = self.sh.SteeringVector(self.job["vector"], self.job["layer"], 1.0)
        length, kept = float(vector.direction.norm()), []
        generate = self.hf.generate
        with (
            mock.patch.object(self.hf, "generate", lambda **given: kept.append(generate(**given)) or kept[-1]),
            self.sh.steer(self.lm, vector, length, unit="absolute"),
        ):
            self.lm.generate(self.texts(batches), max_new_tokens=self.job["new"])
        return kept[0]
