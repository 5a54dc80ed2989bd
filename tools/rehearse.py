"""Rehearse the chapters on models of the size that a reader's GPU takes, with random weights: no hub is needed.

    python tools/rehearse.py                       every chapter, on a CUDA GPU: peak memory and minutes, measured
    python tools/rehearse.py --computed            without a GPU: what they would take, computed from what they run
    python tools/rehearse.py evidence/languages    these chapters; what is known of the others stays

The shapes are those of Llama-3-8B for text, LLaVA-1.5-7B for pictures and Qwen2-Audio-7B for sounds, in 4 bit. The
table goes into `book/reference/models-and-hardware.md`. Computed means: the chapter is run on a model as deep as the
true one, with as large a vocabulary and as many tokens a picture or a sound, but narrow; how many tokens, logits and
kept states it has at one time is counted, and multiplied by what each takes at the true width.
"""

import argparse
import datetime
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
import papermill
import torch
import transformers

import build_book
import marked
from semhub_utils import cache, embedded, lens
from semhub_utils.registry import REGISTRY, ModelSpec

ROOT = build_book.ROOT
PAGE = build_book.BOOK / "reference" / "models-and-hardware.md"
KEPT = ROOT / "tools" / "rehearsal.json"
FOLDER = build_book.BUILD / "rehearsal"
LIKE = {"text": "llama-3-8b", "image": "llava-1.5-7b", "audio": "qwen2-audio-7b"}
# Width, width of the feed-forward part, heads, heads of keys, vocabulary; the blocks are the registry's.
SHAPES = {
    "text": (4096, 14336, 32, 8, 128_256),
    "image": (4096, 11008, 32, 32, 32_064),
    "audio": (4096, 11008, 32, 32, 156_032),
}
_NARROW = (64, 128, 4, 4)

# Runs after the set-up cell: whatever the chapter loads is watched.
_PROBE = """
import json as _json
import semhub_utils as _sh
from semhub_utils import hooks as _hooks

_most = {{"tokens": 0, "logits": 0, "kept": 0}}
_load, _hooked = _sh.load, _hooks._hooked

def _saw(_, args, kwargs):
    given = kwargs.get("input_ids", args[0] if args else None)
    given = kwargs["inputs_embeds"] if given is None else given
    _most["now"] = given.shape[0] * given.shape[1]
    _most["tokens"] = max(_most["tokens"], _most["now"])

def _said(_, __, logits):
    _most["logits"] = max(_most["logits"], logits.numel())

def _watched(lm, layers, see, first):
    def also(layer, state, where):
        _most["kept"] = max(_most["kept"], len(layers) * state.shape[0] * state.shape[1])
        return see(layer, state, where)
    return _hooked(lm, layers, also, first)

def _loaded(*args, **kwargs):
    lm = _load(*args, **{{**kwargs, **{how}}})
    lm.decoder.register_forward_pre_hook(_saw, with_kwargs=True)
    lm.head.register_forward_hook(_said)
    return lm

_sh.load, _hooks._hooked = _loaded, _watched
"""
_TELL = """
import torch as _torch
_most.pop("now", None)
_most["bytes"] = _torch.cuda.max_memory_allocated() if _torch.cuda.is_available() else 0
print("rehearsal:" + _json.dumps(_most))
"""


def chapters() -> list[str]:
    """The chapters that load a model; one that grows its own has no large one to be rehearsed with."""
    return [name for name in build_book.chapters() if "sh.load(" in _source(name)]


def _source(chapter: str) -> str:
    return (build_book.BOOK / f"{chapter}.ipynb").read_text(encoding="utf-8")


def takes(chapter: str) -> str:
    """What a chapter gives its model to read: "text", "image" or "audio"."""
    source = _source(chapter)
    return next((kind for kind in ("image", "audio") if rf"takes=\"{kind}\"" in source), "text")


def tokenizer(size: int, more: tuple[str, ...] = ()) -> Any:
    """The embedded model's tokenizer, cut to as many tokens, with some of its own added.

    What is left: the special tokens, the bytes and the pieces that come first, and of the single characters, which
    stand last in its vocabulary, a quarter of the whole.
    """
    made = json.loads((embedded.path() / "tokenizer.json").read_text(encoding="utf-8"))
    size -= len(more)
    ordered = sorted(made["model"]["vocab"], key=made["model"]["vocab"].get)
    single = [token for token in ordered if len(token) == 1][: size // 4]
    pieces = [token for token in ordered if len(token) != 1][: size - len(single)]
    vocabulary = {token: number for number, token in enumerate(pieces + single)}
    made["model"]["vocab"] = vocabulary
    pairs = (pair if isinstance(pair, list) else pair.split(" ") for pair in made["model"]["merges"])
    made["model"]["merges"] = [[a, b] for a, b in pairs if {a, b, a + b} <= vocabulary.keys()]
    added = (token for token in made["added_tokens"] if token["content"] in vocabulary)
    made["added_tokens"] = [token | {"id": vocabulary[token["content"]]} for token in added]
    path = FOLDER / f"tokenizer-{size}.json"
    cache.write_text(path, json.dumps(made))
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}
    cut = transformers.PreTrainedTokenizerFast(tokenizer_file=str(path), padding_side="left", **names)
    cut.add_tokens(list(more), special_tokens=True)
    return cut


def config(kind: str, narrow: bool, cut: Any) -> transformers.PretrainedConfig:
    """The configuration of the model that a chapter of this kind is rehearsed on, true or narrow."""
    width, inner, heads, keys, vocabulary = SHAPES[kind]
    if narrow:
        width, inner, heads, keys = _NARROW
    text: dict[str, Any] = dict(
        hidden_size=width,
        intermediate_size=inner,
        num_attention_heads=heads,
        num_key_value_heads=keys,
        num_hidden_layers=REGISTRY[LIKE[kind]].blocks,
        vocab_size=vocabulary,
    )
    if kind == "text":
        return transformers.LlamaConfig(**text, bos_token_id=cut.bos_token_id, eos_token_id=cut.eos_token_id)
    if kind == "image":
        sizes = (32, 64, 2, 4) if narrow else (1024, 4096, 24, 16)
        vision = dict(
            zip(("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"), sizes, strict=True)
        )
        return transformers.LlavaConfig(
            vision_config={"model_type": "clip_vision_model", "image_size": 336, "patch_size": 14, **vision},
            text_config={"model_type": "llama", **text},
            image_token_index=cut.convert_tokens_to_ids("<image>"),
            vision_feature_layer=-2,
            vision_feature_select_strategy="default",
        )
    sizes = (32, 2, 4, 64) if narrow else (1280, 32, 20, 5120)
    ears: dict[str, Any] = dict(
        zip(("d_model", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim"), sizes, strict=True)
    )
    return transformers.Qwen2AudioConfig(
        audio_config={"model_type": "qwen2_audio_encoder", "num_mel_bins": 128, "max_source_positions": 1500, **ears},
        text_config={"model_type": "qwen2", **text},
        audio_token_index=cut.convert_tokens_to_ids("<|AUDIO|>"),
    )


def model(kind: str, narrow: bool) -> Path:
    """The folder of a model with random weights, made once."""
    folder = FOLDER / f"{kind}-{'narrow' if narrow else 'true'}"
    if (folder / "config.json").is_file():
        return folder
    more: Any = {"text": (), "image": ("<image>",), "audio": ("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")}[kind]
    cut = tokenizer(SHAPES[kind][-1], more)
    asked = config(kind, narrow, cut)
    makers: dict[str, Any] = {
        "text": transformers.LlamaForCausalLM,
        "image": transformers.LlavaForConditionalGeneration,
        "audio": transformers.Qwen2AudioForConditionalGeneration,
    }
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cpu" if narrow else "cuda"):
            made = makers[kind](asked)
    finally:
        torch.set_default_dtype(before)
    reader: Any = cut
    if kind == "image":
        side = {"height": 336, "width": 336}
        eyes = transformers.CLIPImageProcessor(size={"shortest_edge": 336}, crop_size=side)
        kept = {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
        reader = transformers.LlavaProcessor(eyes, cut, **kept)
    elif kind == "audio":
        reader = transformers.Qwen2AudioProcessor(transformers.WhisperFeatureExtractor(feature_size=128), cut)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    made.save_pretrained(partial)
    reader.save_pretrained(partial)
    partial.rename(folder)
    return folder


def rehearse(chapter: str, narrow: bool) -> dict:
    """Run a chapter under the probe; what it had at one time, and its minutes."""
    kind = takes(chapter)
    notebook = nbformat.read(build_book.BOOK / f"{chapter}.ipynb", as_version=4)
    # Every chapter has its set-up just before its parameters.
    tags = [cell.metadata.get("tags", []) for cell in notebook.cells]
    place = next(number for number, own in enumerate(tags) if "parameters" in own)
    probe = _PROBE.format(how={} if narrow else {"quantize": "4bit"})
    notebook.cells.insert(place, nbformat.v4.new_code_cell(probe, id="rehearsal-probe"))
    notebook.cells.append(nbformat.v4.new_code_cell(_TELL, id="rehearsal-tell"))
    copy = FOLDER / f"{chapter}.ipynb"
    copy.parent.mkdir(parents=True, exist_ok=True)
    start = time.time()
    # As a reader does, with live controls: the page of a model with more blocks may be larger than the book allows.
    live = build_book._ENVIRONMENT | {"SEMHUB_RESULTS": str(FOLDER / "results"), "SEMHUB_WIDGETS": "1"}
    with build_book.variables(live):
        papermill.execute_notebook(
            notebook,
            copy,
            {"model": str(model(kind, narrow))},
            kernel_name="python3",
            cwd=(build_book.BOOK / chapter).parent,
            progress_bar=False,
            execution_timeout=1800,
        )
    minutes = (time.time() - start) / 60
    told = "".join(output.get("text", "") for output in nbformat.read(copy, as_version=4).cells[-1].outputs)
    return json.loads(told.rpartition("rehearsal:")[2]) | {"minutes": minutes}


def computed_bytes(kind: str, most: dict) -> float:
    """What a chapter takes at the true width: the weights in 4 bit, and the most of each thing that it has at one time.

    Of a token in a block: the residual stream, its normed copy, queries, keys, values and what attention returns, six
    widths, and three of the feed-forward part; of a logit 2 bytes and the 4 of its float32 copy; of a kept state 2
    bytes a number; a chunk of the lens, three times in float32; and the largest matrix of a block in 16 bit.
    """
    width, inner, _, _, vocabulary = SHAPES[kind]
    spec: ModelSpec = REGISTRY[LIKE[kind]]
    tokens = most["tokens"] * (6 * width + 3 * inner) * 2
    chunk = 3 * 4 * max(lens._PAIRS_GPU, vocabulary)
    return (
        spec.gigabytes("4bit") * 1e9
        + tokens
        + most["logits"] * 6
        + most["kept"] * width * 2
        + chunk
        + inner * width * 2
    )


def table(rows: dict[str, dict]) -> str:
    """The rows as Markdown, in the order of the book."""
    lines = ["| chapter | in the shape of | GB at most | how | minutes | on | date |", "|---|---|---|---|---|---|---|"]
    for chapter in (name for name in build_book.chapters() if name in rows):
        row = rows[chapter]
        minutes = f"{row['minutes']:.1f}" if row["how"] == "measured" else ""
        cells = [f"`{chapter}`", row["like"], f"{row['gigabytes']:.1f}", row["how"], minutes, row["on"], row["date"]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def written(page: str, rows: dict[str, dict]) -> str:
    """The page with the table between its marks."""
    return marked.filled(page, "rehearsal", table(rows))


def main() -> int:
    """Rehearse, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chapters", nargs="*", metavar="CHAPTER")
    parser.add_argument("--computed", action="store_true", help="without a GPU")
    given = parser.parse_args()
    there = chapters()
    if unknown := [name for name in given.chapters if name not in there]:
        parser.error(f"no chapter is called {unknown[0]!r}; there are {', '.join(there)}")
    if not given.computed and not torch.cuda.is_available():
        parser.error("torch sees no CUDA GPU: run this on a machine with one, or give --computed")
    rows = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.is_file() else {}
    device = "no GPU" if given.computed else torch.cuda.get_device_name()
    for chapter in given.chapters or there:
        most, kind = rehearse(chapter, given.computed), takes(chapter)
        taken = computed_bytes(kind, most) if given.computed else most["bytes"]
        rows[chapter] = {
            "like": LIKE[kind],
            "gigabytes": round(taken / 1e9, 2),
            "how": "computed" if given.computed else "measured",
            "minutes": round(most["minutes"], 2),
            "most": {name: most[name] for name in ("tokens", "logits", "kept")},
            "on": f"{device}, torch {torch.__version__.split('+')[0]}, transformers {transformers.__version__}",
            "date": datetime.date.today().isoformat(),
        }
        print(f"{chapter}: {taken / 1e9:.1f} GB, {most['minutes']:.1f} minutes", flush=True)
        cache.write_text(KEPT, json.dumps(rows, indent=1, sort_keys=True) + "\n")
    cache.write_text(PAGE, written(PAGE.read_text(encoding="utf-8"), rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
