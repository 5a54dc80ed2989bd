"""Baichuan 2 (Yang et al., arXiv 2309.10305) as a Llama, so that none of the code that comes with its weights is run.

It differs from a Llama in three things, and all three are in the files: queries, keys and values are packed in one
matrix, the head divides each row of the unembedding by its length, and the tokenizer is a SentencePiece model. The
mapping is made once, into the cache, and what is loaded from there is transformers' own class.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import cached_file

from semhub_utils import cache

_PACKED = re.compile(r"(model\.layers\.\d+\.self_attn)\.W_pack\.weight")
_WHOLE = {"safetensors": "model.safetensors", "bin": "pytorch_model.bin"}
_SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_KEPT = (*_SIZES, "max_position_embeddings", "rms_norm_eps", "bos_token_id", "eos_token_id", "pad_token_id")
_SHARD = 500 * 2**20  # bytes of a file of the mapping
_ROWS = 8192  # of the unembedding, brought to length 1 at a time


def config_of(source: str, revision: str, local_files_only: bool = False) -> LlamaConfig | None:
    """The configuration of the Llama that `source`, a hub id or a folder, is if it is a Baichuan; else None.

    Raises:
        ValueError: for one that is no Llama within.
        OSError: what the hub's client raises.
    """
    path = _config_file(source, revision, local_files_only)
    config = _read(path)
    return None if config is None else as_llama(config, source)


def native(source: str, revision: str, local_files_only: bool = False) -> str:
    """The folder of the mapping if `source`, a hub id or a folder, is a Baichuan; else `source` itself.

    Raises:
        ValueError: for one that is no Llama within, or whose files are not what its configuration says, by name.
        ImportError: without the package sentencepiece.
        OSError: what the hub's client raises.
    """
    path = _config_file(source, revision, local_files_only)
    config = _read(path)
    if config is None or path is None:
        return source
    asked = as_llama(config, source)
    is_folder = Path(source).is_dir()
    folder = Path(source) if is_folder else _files_of(source, revision, local_files_only)
    files = sorted(file for file in folder.iterdir() if file.is_file())
    # Of a file of the hub its name says what is in it; hashing 15 GB would take as long as the mapping.
    known: list[Any] = [[file.name, file.stat().st_size, str(file.resolve())] for file in files]
    if is_folder:
        known = [[*one, file.stat().st_mtime_ns] for one, file in zip(known, files, strict=True)]
    key = cache.key(known, code=[Path(__file__), path])
    return str(cache.folder("models", f"baichuan-{key}", lambda empty: _map(folder, config, asked, empty)))


def as_llama(config: dict[str, Any], source: str) -> LlamaConfig:
    """The configuration of the Llama that a Baichuan is.

    Raises:
        ValueError: for the models of 13 billion parameters, whose attention leans on distance (ALiBi) where a Llama
            turns by position.
    """
    if "max_position_embeddings" not in config:
        raise ValueError(
            f"{source!r} tells positions apart by ALiBi, as the Baichuan of 13B does, and no Llama does: its weights "
            f"cannot be mapped; take the one of 7B, 'baichuan-2-7b'"
        )
    kept = {name: config[name] for name in _KEPT if name in config}
    return LlamaConfig(**kept, hidden_act=config.get("hidden_act", "silu"), tie_word_embeddings=False)


def has_unit_rows(config: dict[str, Any]) -> bool:
    """Whether the head divides its rows by their length: Baichuan 2 does, which has a weight for the loss of z."""
    return "z_loss_weight" in config or config["vocab_size"] > 64_000


def unit_rows(weight: Float[Tensor, "vocabulary d_model"]) -> Float[Tensor, "vocabulary d_model"]:
    """Each row divided by its length, computed in float32 a part at a time: w / max(|w|, 1e-12)."""
    out = torch.empty_like(weight)
    for start in range(0, len(weight), _ROWS):
        part = weight[start : start + _ROWS].float()
        out[start : start + _ROWS] = torch.nn.functional.normalize(part).to(weight.dtype)
    return out


def _config_file(source: str, revision: str, local_files_only: bool) -> Path | None:
    if Path(source).is_dir():
        return Path(source, "config.json")
    found = cached_file(source, "config.json", revision=revision, local_files_only=local_files_only)
    return Path(found) if found else None


def _read(path: Path | None) -> dict[str, Any] | None:
    if path is None or not path.is_file():
        return None
    config = json.loads(path.read_text(encoding="utf-8"))
    return config if config.get("model_type") == "baichuan" else None


def _files_of(source: str, revision: str, local_files_only: bool) -> Path:
    """The folder of a hub model's files, the weights in one of their two forms."""
    how: dict[str, Any] = {"revision": revision, "local_files_only": local_files_only}
    folder = Path(snapshot_download(source, allow_patterns=["*.json", "tokenizer.model", "*.safetensors"], **how))
    if not list(folder.glob("*.safetensors")):
        snapshot_download(source, allow_patterns=["*.bin"], **how)
    return folder


def _map(source: Path, config: dict[str, Any], asked: LlamaConfig, folder: Path) -> None:
    with torch.device("meta"):
        wanted = {name: tensor.shape for name, tensor in LlamaForCausalLM(asked).state_dict().items()}
    where: dict[str, str] = {}
    held: dict[str, Tensor] = {}
    dtype = None

    def write() -> None:
        name = f"model-{len(set(where.values())) + 1:05}.safetensors"
        where.update(dict.fromkeys(held, name))
        save_file(held, folder / name, metadata={"format": "pt"})
        held.clear()

    for name, tensor in _renamed(source, has_unit_rows(config)):
        if name not in wanted or tensor.shape != wanted[name]:
            expected = (
                f"is {tuple(tensor.shape)} and not {tuple(wanted[name])}" if name in wanted else "belongs to no Llama"
            )
            raise ValueError(f"{source}: the tensor {name} {expected}: the files are not those of its config.json")
        if held and sum(t.nbytes for t in held.values()) + tensor.nbytes > _SHARD:
            write()
        held[name], dtype = tensor.contiguous(), tensor.dtype
    write()
    if missing := sorted(wanted.keys() - where.keys()):
        raise ValueError(f"{source}: {len(missing)} tensors are missing, the first {missing[0]}: get the files again")
    total = sum((folder / name).stat().st_size for name in set(where.values()))
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    asked.dtype = dtype
    asked.architectures = ["LlamaForCausalLM"]
    asked.save_pretrained(folder)
    tokenizer(source).save_pretrained(folder)


def _renamed(source: Path, unit: bool) -> Iterator[tuple[str, Tensor]]:
    """Each tensor of a checkpoint under the name that it has in a Llama; those of one file stay on the disk, mapped."""
    for name, tensor in _tensors(source):
        if packed := _PACKED.fullmatch(name):
            for part, one in zip("qkv", tensor.chunk(3), strict=True):
                yield f"{packed[1]}.{part}_proj.weight", one
        elif name == "lm_head.weight" and unit:
            yield name, unit_rows(tensor)
        elif not name.endswith("inv_freq"):  # which a Llama works out
            yield name, tensor


def _tensors(source: Path) -> Iterator[tuple[str, Tensor]]:
    for ending, whole in _WHOLE.items():
        index = source / f"{whole}.index.json"
        if index.is_file():
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        elif (source / whole).is_file():
            names = [whole]
        else:
            continue
        if absent := [name for name in names if not (source / name).is_file()]:
            raise ValueError(f"{source} lacks {absent[0]}, which its index names: get the files again")
        for name in names:
            if ending == "bin":
                yield from torch.load(source / name, mmap=True, weights_only=True, map_location="cpu").items()
                continue
            with safe_open(source / name, framework="pt") as opened:
                for one in opened.keys():  # noqa: SIM118
                    yield one, opened.get_tensor(one)
        return
    raise ValueError(f"{source} has no weights: {' or '.join(_WHOLE.values())}, whole or in parts with an index")


def tokenizer(source: Path) -> PreTrainedTokenizerFast:
    """The SentencePiece model of a folder as a fast tokenizer that gives the same tokens.

    Raises:
        ValueError: without `tokenizer.model`, or for one that takes spaces out.
        ImportError: without the package sentencepiece.
    """
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError as error:
        raise ImportError(
            "a Baichuan's tokenizer needs the package sentencepiece: pip install sentencepiece"
        ) from error
    if not (source / "tokenizer.model").is_file():
        raise ValueError(f"{source} has no tokenizer.model: get the files again")
    pieces = SentencePieceProcessor(model_file=str(source / "tokenizer.model"))
    names = [pieces.id_to_piece(i) for i in range(pieces.vocab_size())]
    vocabulary = {name: i for i, name in enumerate(names)}
    apart = [i for i in range(len(names)) if pieces.is_control(i) or pieces.is_unknown(i)]
    plain = [i for i in range(len(names)) if not pieces.is_byte(i) and i not in set(apart)]
    inner = Tokenizer(
        models.BPE(
            vocabulary,
            _merges(names, plain, pieces, vocabulary),
            unk_token=names[pieces.unk_id()],
            fuse_unk=True,
            byte_fallback=any(map(pieces.is_byte, range(len(names)))),
        )
    )
    # What the model does to spaces is seen by what it does.
    if "".join(pieces.encode("a  a ", out_type=str)).count("▁") < 3:
        raise ValueError(f"{source}: its tokenizer takes spaces out, as no Baichuan's does: get the files again")
    marks_first = pieces.encode("a", out_type=str)[0].startswith("▁")
    steps: list[Any] = [normalizers.Prepend("▁")] if marks_first else []
    inner.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    strip = [decoders.Strip(content=" ", left=1, right=0)] if marks_first else []
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    inner.add_special_tokens([AddedToken(names[i], normalized=False, special=True) for i in apart])
    settings = source / "tokenizer_config.json"
    told = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
    first, last = names[pieces.bos_id()], names[pieces.eos_id()]
    if told.get("add_bos_token"):
        inner.post_processor = processors.TemplateProcessing(
            single=f"{first} $A", special_tokens=[(first, pieces.bos_id())]
        )
    special = {"bos_token": first, "eos_token": last, "unk_token": names[pieces.unk_id()], "pad_token": names[0]}
    return PreTrainedTokenizerFast(tokenizer_object=inner, padding_side="left", **special)


def _merges(names: list[str], plain: list[int], pieces: Any, vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """The pairs that may be joined, the best piece first, as SentencePiece joins them."""
    of_some = {names[i] for i in plain}
    found = []
    for i in sorted(plain, key=lambda i: (-pieces.get_score(i), i)):
        name = names[i]
        pairs = [(name[:cut], name[cut:]) for cut in range(1, len(name))]
        found += sorted(
            (p for p in pairs if p[0] in of_some and p[1] in of_some), key=lambda p: tuple(map(vocabulary.get, p))
        )
    return found
