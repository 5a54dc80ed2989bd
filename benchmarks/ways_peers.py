"""The work of ways_here.py as other libraries do it.

Each is written as its documentation shows it, in the fastest form that it has: in batches, no logits where the model
can be stopped before them, and only the states that are asked for kept.
"""

import importlib

import torch

from ways_here import Bare


class NNsight(Bare):
    """nnsight: `trace` on token ids, `tracer.stop()` before the logits, `generate` with `tracer.iter`."""

    packages = ("nnsight", "torch", "transformers")

    def wrap(self):
        """TransformersModel takes a model that is loaded."""
        self.nnsight = importlib.import_module("nnsight")
        self.model = self.nnsight.TransformersModel(self.hf, tokenizer=self.tokenizer, task="text-generation")

    def states(self, batches):
        """The last token of each block's output, and no logits."""
        model, rows = self.model, []
        for batch in batches:
            with model.trace(**self.inputs(batch), use_cache=False) as tracer:
                last = [model.model.layers[0].input[:, -1]]
                for layer in model.model.layers:
                    last.append(layer.output[:, -1])
                states = torch.stack(last, 1).float().cpu().save()
                tracer.stop()
            rows.append(states)
        return rows

    def lens(self, batches):
        """Each layer's states through the norm and the head within the trace, real positions only."""
        model = self.model
        for batch in batches:
            real = batch["attention_mask"].bool()
            with model.trace(**self.inputs(batch), use_cache=False) as tracer:
                scores = self.nnsight.save([])
                scores.append(self.scored(model.lm_head(model.model.norm(model.model.layers[0].input[real]))))
                for layer in model.model.layers:
                    scores.append(self.scored(model.lm_head(model.model.norm(layer.output[real]))))
                tracer.stop()
            yield tuple(torch.stack(part) for part in zip(*scores, strict=True))

    def steer(self, batches):
        """The block's output is assigned anew at every step."""
        model, new = self.model, self.job["new"]
        with model.generate(**self.prompts(batches), **self.greedy) as tracer:
            for _ in tracer.iter[:new]:
                block = model.model.layers[self.job["layer"] - 1]
                block.output = block.output + self.vector
            ids = tracer.result.save()
        return ids


class NNterp(Bare):
    """nnterp: StandardizedTransformer's accessors, its `project_on_vocab` and its `steer`, in nnsight's traces."""

    packages = ("nnterp", "nnsight", "torch", "transformers")

    def wrap(self):
        """StandardizedTransformer takes a model that is loaded; what it checks of it is not timed."""
        self.nnsight = importlib.import_module("nnsight")
        maker = importlib.import_module("nnterp").StandardizedTransformer
        self.model = maker(self.hf, tokenizer=self.tokenizer)

    def states(self, batches):
        """`layers_output` of every layer, its last token, and no logits."""
        model, rows = self.model, []
        for batch in batches:
            with model.trace(self.inputs(batch), use_cache=False) as tracer:
                last = [model.layers_input[0][:, -1]]
                for layer in range(model.num_layers):
                    last.append(model.layers_output[layer][:, -1])
                states = torch.stack(last, 1).float().cpu().save()
                tracer.stop()
            rows.append(states)
        return rows

    def lens(self, batches):
        """`project_on_vocab` of every layer within the trace, real positions only."""
        model = self.model
        for batch in batches:
            real = batch["attention_mask"].bool()
            with model.trace(self.inputs(batch), use_cache=False) as tracer:
                scores = self.nnsight.save([])
                scores.append(self.scored(model.project_on_vocab(model.layers_input[0][real])))
                for layer in range(model.num_layers):
                    scores.append(self.scored(model.project_on_vocab(model.layers_output[layer][real])))
                tracer.stop()
            yield tuple(torch.stack(part) for part in zip(*scores, strict=True))

    def steer(self, batches):
        """`steer` at every step."""
        model, new = self.model, self.job["new"]
        with model.generate(self.prompts(batches), **self.greedy) as tracer:
            for _ in tracer.iter[:new]:
                model.steer(layers=self.job["layer"] - 1, steering_vector=self.vector)
            ids = model.generator.output.save()
        return ids


class TransformerLens(Bare):
    """TransformerLens 3 and later: a TransformerBridge, `run_with_cache` with a names_filter, `hooks`."""

    packages = ("transformer-lens", "torch", "transformers")

    def wrap(self):
        """`boot_transformers` takes a model that is loaded, and leaves its weights as they are."""
        bridge = importlib.import_module("transformer_lens.model_bridge").TransformerBridge
        dtype, device = getattr(torch, self.job["dtype"]), self.job["device"]
        name = self.job["folder"] or "random-llama"
        # It would read the tokenizer again from where it came, to be sure of its <bos>; here it is given token ids.
        self.tokenizer.init_kwargs |= {"name_or_path": name, "add_bos_token": True}
        self.model = bridge.boot_transformers(
            name, hf_model=self.hf, tokenizer=self.tokenizer, dtype=dtype, device=device
        )
        self.names = ["blocks.0.hook_in"] + [f"blocks.{k}.hook_out" for k in range(self.model.cfg.n_layers)]

    def cached(self, batch, **more):
        """The residual streams; of the logits, which come after the last of them, one position only."""
        inputs = self.inputs(batch)
        ids = inputs.pop("input_ids")
        more |= {"return_type": None, "use_cache": False, "logits_to_keep": 1, "return_cache_object": False}
        _, cache = self.model.run_with_cache(ids, names_filter=self.names, **inputs, **more)
        return [cache[name] for name in self.names]

    def states(self, batches):
        """`pos_slice=-1` keeps the last token."""
        return [torch.stack([h[:, -1] for h in self.cached(batch, pos_slice=-1)], 1).float().cpu() for batch in batches]

    def lens(self, batches):
        """`ln_final` and `unembed` on the cached residual streams, real positions only."""
        for batch in batches:
            real = batch["attention_mask"].bool()
            kept = self.cached(batch)
            scores = [self.scored(self.model.unembed(self.model.ln_final(h[real]))) for h in kept]
            yield tuple(torch.stack(part) for part in zip(*scores, strict=True))

    def steer(self, batches):
        """`hf_generate` inside `hooks`."""
        name = f"blocks.{self.job['layer'] - 1}.hook_out"
        inputs = self.prompts(batches)
        ids = inputs.pop("input_ids")
        with self.model.hooks(fwd_hooks=[(name, lambda state, hook: state + self.vector)]):  # noqa: ARG005
            return self.model.hf_generate(ids, stop_at_eos=False, return_type="tokens", **inputs, **self.greedy)
