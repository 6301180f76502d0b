"""What is attacked, and how: each target damages what lies in a folder and names the commands that read it."""

from __future__ import annotations

import copy
import csv
import gzip
import io
import json
import struct
from collections.abc import Callable, Iterator, MutableMapping, MutableSequence, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from hypothesis import strategies as st
from PIL import Image

from aigc_cli.config.compose import compose
from aigc_cli.config.folders import options
from aigc_cli.config.words import COMMANDS, FLAGS
from aigc_cli.files import checksum

Draw = Callable[..., Any]
Lines = Iterator[list[str]]
#: Does its damage in a folder and yields the command lines to type there.
Target = Callable[[Path, Draw], Lines]

SHORT = [
    "trainer.steps=1", "trainer.batch_size=4", "trainer.sample_every=null", "trainer.examine_every=null",
    "trainer.device=cpu", "trainer.threads=1", "trainer.devices=1", "recipe=null",
]  # fmt: skip
VAE = ["model=vae", "model.network=mlp", "model.hidden=8", "model.latent=2"]
WRITER = ["model=transformer", "model.layers=1", "model.heads=1", "model.width=8"]
TRANSLATOR = ["model=seq2seq", "model.layers=1", "model.encoder_layers=1", "model.heads=1", "model.width=8"]
RUNS = {
    "images": [*VAE, "data=digits", "data.size=8"],
    "text": [*WRITER, "data=text", "data.root=words.txt", "data.context=8", "data.tokenizer.vocab_size=264"],
}


def prepare(typed: Callable[[Sequence[str]], tuple[int, str]]) -> None:
    """Makes in the current folder what the targets damage: words, and small runs of images and of those words."""
    Path("words.txt").write_text(" ".join(f"{number} and {number + 1} are read." for number in range(300)))
    for name, words in RUNS.items():
        code, said = typed(["train", f"run_dir=outputs/{name}/run", *words, *SHORT])
        assert code == 0, said


def readers(run: str) -> Lines:
    """All that reads a run."""
    yield from ([*words, f"run=outputs/{run}/run"] for words in (["sample", "n=1"], ["eval", "n=8", "split=val"]))
    yield ["train", "--resume", f"outputs/{run}/run", "trainer.steps=2"]
    yield ["ls", "runs"]


# What is drawn

_NASTY = [
    "", " ", "null", "~", "nan", "inf", "-1", "0", "1e999", "9" * 40, "0x10", "1_000", "${model}", "${oc.env:HOME}",
    "${oc.decode:1}", "${", "..", "../..", "/dev/null", "/proc/nowhere", "latest", "[]", "[1,", "{a: 1}", "{", "'", '"',
    "a,b", "range(1,3)", "choice(1,2)", "glob(*)", "!!python/name:os.system", "&a [*a]", "\x00", "\ufeff", "é" * 300,
]  # fmt: skip
#: Without a slash, so that nothing is written outside of the folder.
_LETTERS = st.characters(codec="utf-8", exclude_characters="/\\")
_TEXT = st.sampled_from(_NASTY) | st.text(_LETTERS, max_size=12)
_NUMBERS = st.integers() | st.sampled_from([0, -1, 1 << 31, 1 << 63, 1 << 70]) | st.floats()
_SCALARS = st.none() | st.booleans() | _NUMBERS | _TEXT
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3), max_leaves=5
)


def damaged(tree: Any, draw: Draw) -> Any:
    """A copy of a tree of mappings and lists with one to three of its nodes replaced, removed or added to."""
    root = {"": copy.deepcopy(tree)}
    for _ in range(draw(st.integers(1, 3))):
        parent, key = draw(st.sampled_from(list(_places(root))))
        act = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if act == "remove" and parent is not root:
            del parent[key]
        elif act == "add" and isinstance(parent[key], MutableMapping):
            parent[key][draw(_TEXT)] = draw(_VALUES)
        else:
            parent[key] = draw(_VALUES)
    return root[""]


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every node under `node`, as the container that holds it and its key there."""
    if isinstance(node, MutableMapping):
        keys: list[Any] = list(node)
    else:
        keys = list(range(len(node))) if isinstance(node, MutableSequence) else []
    for key in keys:
        yield node, key
        yield from _places(node[key])


def mutated(content: bytes, draw: Draw) -> bytes:
    """Bytes with one to four pieces overwritten, removed, repeated or cut off."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        stop = min(len(content), start + draw(st.integers(0, 16)))
        act = draw(st.sampled_from(["overwrite", "remove", "repeat", "cut"]))
        if act == "overwrite":
            content = content[:start] + draw(st.binary(max_size=16)) + content[stop:]
        elif act == "remove":
            content = content[:start] + content[stop:]
        elif act == "repeat":
            content = content[:start] + content[start:stop] * draw(st.integers(2, 100)) + content[stop:]
        else:
            content = content[:start]
    return content


# What is attacked


def command_lines(here: Path, draw: Draw) -> Lines:
    """Words that are keys, flags, values and none of these."""
    command = draw(st.sampled_from([*COMMANDS, "help"]))
    flags = sorted({*FLAGS, "-m", "-h", "-c"} - {"--plugin", "--debug"})  # the first imports what it is told to
    keys = st.sampled_from(keys_of(command)) | _TEXT
    signs = st.sampled_from(["", "", "", "+", "++", "~"])
    pairs = st.builds(lambda sign, key, value: f"{sign}{key}={value}", signs, keys, _TEXT)
    words = draw(st.lists(pairs | st.sampled_from(flags) | _TEXT | st.builds("~{}".format, keys), max_size=5))
    line = [command, *(word for word in words if not word.startswith("--plugin"))]
    if command == "train" and "--resume" not in line:
        line += draw(st.sampled_from([["--cfg", "job"], [*VAE, *SHORT]]))
    yield line


@cache
def keys_of(command: str) -> list[str]:
    """Every key that a command has, with any model and any data."""
    if command not in ("train", "sample", "eval", "embed", "data"):
        return ["outputs"]
    found: set[str] = set()
    for model in options("model") if command == "train" else [None]:
        config = compose(command, [] if model is None else [f"model={model}"])
        found |= set(_dotted(config))
    return sorted(found)


def _dotted(tree: Any, before: str = "") -> Iterator[str]:
    for key, value in tree.items() if isinstance(tree, dict) else ():
        yield f"{before}{key}"
        yield from _dotted(value, f"{before}{key}.")


def configs(here: Path, draw: Draw) -> Lines:
    """The configuration of a run, or a file of the user's own that adds to ours."""
    if draw(st.booleans()):
        run = draw(st.sampled_from(list(RUNS)))
        spoil_yaml(here / "outputs" / run / "run" / "config.yaml", draw)
        yield from readers(run)
    else:
        group = draw(st.sampled_from(["model", "data", "optimizer", "trainer", "experiment"]))
        origin = draw(st.sampled_from(sorted(options(group).values())))
        mine = here / "configs" / group / "mine.yaml"
        mine.parent.mkdir(parents=True)
        mine.write_bytes(origin.read_bytes())
        spoil_yaml(mine, draw)
        yield ["train", f"{group}=mine", "--cfg", "job"]
        if group != "experiment":  # which may ask for data that are not there, or for networks of any size
            yield ["train", *VAE, "data=digits", "data.size=8", f"{group}=mine", *SHORT]


def spoil_yaml(path: Path, draw: Draw) -> None:
    """Damages what a file says, or its bytes."""
    if draw(st.integers(0, 3)):
        tree = damaged(yaml.safe_load(path.read_bytes()), draw)
        path.write_text(yaml.safe_dump(tree, allow_unicode=True, sort_keys=False), encoding="utf-8")
    else:
        path.write_bytes(mutated(path.read_bytes(), draw))


def records(here: Path, draw: Draw) -> Lines:
    """The JSON of a run and of its checkpoint, which has the right sums of it more often than not."""
    run = draw(st.sampled_from(list(RUNS)))
    folder = here / "outputs" / run / "run"
    path = draw(st.sampled_from(sorted([*folder.rglob("*.json"), folder / "metrics.jsonl", folder / "best.json"])))
    content = path.read_bytes() if path.is_file() else b'{"step": 1}'
    if path.suffix == ".json" and draw(st.integers(0, 3)):
        content = json.dumps(damaged(json.loads(content), draw)).encode()
    else:
        content = mutated(content, draw)
    path.write_bytes(content)
    if path.parent.name.startswith("step-") and draw(st.integers(0, 3)):
        correct_sum(path)
    yield from readers(run)


def weights(here: Path, draw: Draw) -> Lines:
    """The header of a file of tensors, whose sum in the manifest is right, as a stranger would make it."""
    run = draw(st.sampled_from(list(RUNS)))
    path = draw(st.sampled_from(sorted((here / "outputs" / run / "run").rglob("*.safetensors"))))
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    if draw(st.integers(0, 3)):
        header = json.dumps(damaged(json.loads(content[8 : 8 + size]), draw)).encode()
        said = draw(st.sampled_from([len(header)] * 4 + [0, len(header) + 8, 1 << 40, (1 << 64) - 1]))
        content = struct.pack("<Q", said) + header + content[8 + size :]
    else:
        content = mutated(content[: 8 + size], draw) + content[8 + size :]
    path.write_bytes(content)
    correct_sum(path)
    yield from readers(run)


def correct_sum(path: Path) -> None:
    """Has the manifest beside a file agree with it."""
    manifest = path.parent / "manifest.json"
    if path != manifest:
        sums = json.loads(manifest.read_bytes())
        sums[path.name] = checksum(path)
        manifest.write_text(json.dumps(sums))


@cache
def pictures() -> dict[str, bytes]:
    """A small picture in each format and mode, by file name."""
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 4), dtype=np.uint8)
    image = Image.fromarray(pixels)
    made = {}
    for form, modes in {
        "png": "1 L LA P RGB RGBA I;16",
        "jpeg": "L RGB CMYK",
        "webp": "RGB RGBA",
        "bmp": "P RGB",
    }.items():
        for mode in modes.split():
            buffer = io.BytesIO()
            image.convert("RGB").convert(mode if mode != "I;16" else "I").convert(mode).save(buffer, form)
            made[f"{mode.replace(';', '')}.{form}"] = buffer.getvalue()
    buffer = io.BytesIO()
    image.save(buffer, "png", save_all=True, append_images=[image.rotate(90)])
    return made | {"animated.png": buffer.getvalue()}


def images(here: Path, draw: Draw) -> Lines:
    """A folder of pictures, some of which are spoilt."""
    folder = here / "pictures"
    folder.mkdir()
    whole = pictures()
    for name, content in whole.items():
        (folder / name).write_bytes(content)
    for number, name in enumerate(draw(st.lists(st.sampled_from(sorted(whole)), min_size=1, max_size=4))):
        (folder / f"{number}-{name}").write_bytes(mutated(whole[name], draw))
    streamed = draw(st.sampled_from(["4", "1e-6"]))
    yield ["data", "show", "data=image_folder", "data.root=pictures", "data.size=8"]
    form, size, dedup = draw(
        st.tuples(*map(st.sampled_from, (("folder", "parquet"), ("auto", "null"), ("near", "false"))))
    )
    copy = ["out=copy", f"format={form}", f"size={size}", f"dedup={dedup}"]
    yield ["data", "prepare", "data=image_folder", "data.root=pictures", "data.size=8", *copy]
    yield [
        "train",
        *VAE,
        "data=image_folder",
        "data.root=pictures",
        "data.size=8",
        f"data.memory_gb={streamed}",
        *SHORT,
    ]


def texts(here: Path, draw: Draw) -> Lines:
    """Files of text of every kind, as a corpus, as pairs, as prompts and as lines to embed."""
    kind = draw(st.sampled_from([".txt", ".jsonl", ".csv", ".tsv", ".txt.gz"]))
    path = here / f"broken{kind}"
    content = mutated(written(kind, draw(st.integers(0, 40))), draw)
    path.write_bytes(content)
    tokenizer = draw(st.sampled_from(["char", "byte", "bpe"]))
    shape = draw(st.sampled_from([[], ["data.lines=true"], ["data.items=documents"], ["data.split_by=document"]]))
    small = ["data.context=8", f"data.tokenizer.kind={tokenizer}", "data.tokenizer.vocab_size=264"]
    dedup = draw(st.sampled_from(["near", "exact", "false"]))
    yield ["data", "show", "data=text", f"data.root={path.name}", *small, *shape]
    yield ["data", "prepare", "data=text", f"data.root={path.name}", *small, *shape, f"dedup={dedup}", "out=text"]
    yield ["train", *WRITER, "data=text", f"data.root={path.name}", *small, *shape, *SHORT]
    sides = ["data.source=text", "data.target=other", f"data.tokenizer.kind={tokenizer}", "data.batch_tokens=null"]
    yield ["data", "show", "data=pairs", f"data.root={path.name}", *sides]
    yield ["data", "prepare", "data=pairs", f"data.root={path.name}", *sides, f"dedup={dedup}", "out=pairs"]
    yield ["train", *TRANSLATOR, "data=pairs", f"data.root={path.name}", *sides, *SHORT]
    yield ["sample", "run=outputs/text/run", f"prompt_file={path.name}", "max_tokens=2", "out=made"]
    yield ["embed", path.name, "run=outputs/text/run", "out=vectors.npz"]


def written(kind: str, count: int) -> bytes:
    """Some lines of text in a kind of file, each with a second text beside it where the kind has fields."""
    rows = [{"text": f"{number} is read.", "other": f"lu: {number}"} for number in range(count)]
    if kind == ".jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    if kind in (".csv", ".tsv"):
        file = io.StringIO()
        writer = csv.DictWriter(file, ["text", "other"], delimiter="," if kind == ".csv" else "\t")
        writer.writeheader()
        writer.writerows(rows)
        return file.getvalue().encode()
    plain = "\n".join(row["text"] for row in rows).encode()
    return gzip.compress(plain) if kind == ".txt.gz" else plain


TARGETS: dict[str, Target] = {
    "command-lines": command_lines,
    "configs": configs,
    "records": records,
    "weights": weights,
    "images": images,
    "texts": texts,
}
