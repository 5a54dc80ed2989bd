"""Several processes side by side, as torchrun starts them: they share one model's weights, or the parts of a sweep.

The sharing of weights is transformers' own tensor parallelism, and the processes are accelerate's; what stands here
asks for them, refuses early what they cannot do, and lets processes agree.
"""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import transformers
from torch import Tensor, distributed
from transformers import PretrainedConfig, PreTrainedModel

Given = TypeVar("Given")

# By which `from_pretrained` is told, of the newer and the older transformers.
TOLD = {"distributed_config", "tp_plan"}
COMMAND = "torchrun --nproc-per-node 2 run.py"
# A process may wait for the others as long as their parts of a sweep take.
_PATIENCE = timedelta(days=7)


def processes() -> int:
    """How many processes run this program side by side; 1 unless torchrun or accelerate started it."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    return int(os.environ.get("WORLD_SIZE") or 1)


def is_first() -> bool:
    """Whether this process is the one that speaks and shows bars: it is alone, or the first of several."""
    return processes() == 1 or int(os.environ.get("RANK") or 0) == 0


def own_gpu() -> str | None:
    """The GPU of this process among several on one machine, such as "cuda:1"; None for a process that is alone."""
    return f"cuda:{os.environ.get('LOCAL_RANK') or 0}" if processes() > 1 else None


def shares_weights(model: PreTrainedModel) -> bool:
    """Whether other processes hold the rest of this model's weights."""
    return (getattr(model, "_tp_size", None) or 1) > 1


def tensor_parallel_device(device: str | None, quantize: str | None) -> str:
    """Where this process computes under tensor parallelism: its own GPU, or the CPU where there is none.

    Raises:
        RuntimeError: without torchrun, with the command line that starts it.
        ValueError: for a device of one's own choice, or for rounded weights.
    """
    if "WORLD_SIZE" not in os.environ or "RANK" not in os.environ:
        raise RuntimeError(
            "tensor_parallel=True shares the weights among processes, and this is the only one (WORLD_SIZE and RANK "
            f"are not set): write what you run into a file and start it with `{COMMAND}`, a process for each GPU; or "
            "leave tensor_parallel out, and the blocks are spread over the GPUs there are"
        )
    if quantize:
        raise ValueError(
            f"quantize={quantize!r} does not go with tensor_parallel=True: transformers does not split what "
            "bitsandbytes has rounded; leave one of the two out"
        )
    has_gpu = torch.cuda.is_available()
    if device not in (None, "cpu") or (device == "cpu" and has_gpu):
        raise ValueError(
            f"device is {device!r}: with tensor_parallel=True every process takes the GPU of its number, so leave it "
            "out (to stay off the GPUs, set the environment variable CUDA_VISIBLE_DEVICES to nothing)"
        )
    return f"cuda:{os.environ.get('LOCAL_RANK') or 0}" if has_gpu else "cpu"


class PlanError(ValueError):
    """Told apart from the errors of transformers, which are ValueErrors too."""


def check_plan(maker: Any, config: PretrainedConfig, name: str) -> None:
    """Refuse a model that transformers cannot split, or not among so many processes, before it is downloaded.

    Raises:
        PlanError: that names the model and says what to do instead.
    """
    with torch.device("meta"):  # its parts without their weights, which is where the plan stands
        plan = (getattr(maker, "from_config", None) or maker._from_config)(config)._tp_plan
    if not any("*" in part for part in plan or {}):  # the blocks, by any number
        raise PlanError(
            f"{name} ({config.model_type}) has no plan for tensor parallelism in transformers "
            f"{transformers.__version__}: leave tensor_parallel out, and without torchrun its blocks are spread over "
            f'the GPUs there are (device_map="auto")'
        )
    text, count = config.get_text_config(), processes()
    heads = text.num_attention_heads
    pairs = getattr(text, "num_key_value_heads", None) or heads
    most = math.gcd(heads, pairs)
    if most % count:
        fitting = ", ".join(str(n) for n in range(1, most + 1) if most % n == 0)
        raise PlanError(
            f"{name} has {heads} heads of queries and {pairs} of keys and values, which {count} processes cannot share "
            f"evenly: start {fitting}, or leave tensor_parallel out"
        )


def told() -> dict[str, Any]:
    """What `from_pretrained` is told for tensor parallelism, by the plan that transformers has for the model."""
    try:
        from transformers.distributed import DistributedConfig

        return {"distributed_config": DistributedConfig(tp_plan="auto")}
    except (ImportError, TypeError):  # before transformers 5.15 it was said so
        return {"tp_plan": "auto"}


def computes_on(module: Any) -> torch.device:
    """The device on which a module with a weight computes."""
    # Of an offloaded part the weight itself is on no device.
    device = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
    return module.weight.device if device is None else torch.device(device)


def gathered(model: PreTrainedModel, weight: Tensor, rows: int) -> Tensor:
    """A weight of so many rows as one plain tensor, whichever way processes share it; all of them call together."""
    if hasattr(weight, "full_tensor"):
        return weight.full_tensor()
    if not shares_weights(model) or len(weight) >= rows:
        return weight
    # Some releases of transformers 5 keep the rows of each process as a tensor that says nothing of the others.
    counts = [torch.zeros(1, dtype=torch.long, device=weight.device) for _ in range(processes())]
    distributed.all_gather(counts, torch.tensor([len(weight)], device=weight.device))
    longest = max(int(count) for count in counts)
    padded = torch.cat([weight.detach(), weight.new_zeros(longest - len(weight), *weight.shape[1:])])
    parts = [torch.empty_like(padded) for _ in counts]
    distributed.all_gather(parts, padded)
    return torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)])


def agreed(model: PreTrainedModel, state: Tensor) -> Tensor:
    """The state as the first process has it, for what a function of the reader's may have drawn at random.

    Each process of a model that shares its weights goes on from the same state, or the parts do not add up.
    """
    if not shares_weights(model):
        return state
    state = state.contiguous()
    distributed.broadcast(state, 0)
    return state


@dataclass(frozen=True)
class Team:
    """The processes that run one sweep: the number of this one, how many they are, and whether they divide the work."""

    rank: int
    size: int
    divides: bool
    group: Any = None

    def all(self, work: Callable[[], Given]) -> list[Given]:
        """What `work` returns in each process, in their order; where it raises in one, all raise.

        The others first finish theirs: no process waits for one that is gone, and what is kept in files is kept.
        """
        if self.size == 1:
            return [work()]
        mine: Given | None = None
        error: Exception | None = None
        try:
            mine = work()
        except Exception as failed:
            error = failed
            print(f"Process {self.rank} of {self.size} failed: {failed!r}. The others finish their parts.", flush=True)
        found: list[Any] = [None] * self.size
        distributed.all_gather_object(found, (mine, None if error is None else repr(error)), group=self.group)
        if error is not None:
            raise error
        for rank, (_, said) in enumerate(found):
            if said is not None:
                raise RuntimeError(f"process {rank} of {self.size} failed: {said}")
        return [one for one, _ in found]


@contextmanager
def team(model: PreTrainedModel) -> Iterator[Team]:
    """The processes side by side, this one alone if there are no others.

    They divide work where each has the whole model, and each does all of it where they share one model's weights.
    """
    if processes() == 1:
        yield Team(0, 1, False)
        return
    from accelerate import PartialState  # late: it starts the processes' talk, unless something has

    PartialState(cpu=not torch.cuda.is_available())
    if not distributed.is_initialized():  # somebody asked before, who did not say that it is the CPU
        distributed.init_process_group("gloo")
    group = distributed.new_group(backend="gloo", timeout=_PATIENCE)
    try:
        yield Team(distributed.get_rank(), distributed.get_world_size(), not shares_weights(model), group)
    finally:
        distributed.destroy_process_group(group)
