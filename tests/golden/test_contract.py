"""What people and their scripts rely on: configurations, keys of records, names of files, exit codes.

Texts for people are not held here: they may be written anew. A change that is meant is stored with
``AIGC_WRITE_GOLDENS=1 pytest tests/golden``, and its diff is the list of what changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from line import aigc

CONFIGURATIONS = {
    "train": ["train"],
    "train-vae": ["train", "model=vae", "trainer.steps=7", "seed=3", "optimizer.lr=1e-4"],
    "train-vae-text": ["train", "model=vae", "data=pydocs"],
    "train-gan-cifar10": ["train", "model=gan", "data=cifar10", "optimizer=adamw", "model.augment=[ada]"],
    "train-biggan": ["train", "model=biggan", "model.width=16"],
    "train-r3gan-folder": ["train", "model=r3gan_small", "data=image_folder", "data.root=pictures", "optimizer=sgd"],
    "train-hvae-bare": ["train", "model=hvae", "recipe=null"],
    "train-vqvae-parquet": ["train", "model=vqvae", "data=parquet", "data.root=p.parquet", "optimizer=rmsprop"],
    "train-transformer": ["train", "model=transformer", "run_dir=7"],
    "train-bert": ["train", "model=bert", "data=shakespeare", "model.init_from=latest", "model.lora.rank=8"],
    "train-seq2seq": ["train", "model=seq2seq", "data=pairs", "data.source=a.en", "data.target=b.de"],
    "train-debug": ["train", "experiment=debug"],
    "train-shakespeare": ["train", "experiment=shakespeare_char_cpu", "trainer.steps=9"],
    "sample": ["sample"],
    "sample-image": ["sample", "run=2026", "n=4", "truncation=0.7", "mode=interpolate", "class=cat,dog", "step=best"],
    "sample-text": ["sample", "prompt=To be, (or) not", "top_k=5", "data.root=x", "prompt_file=p.txt"],
    "eval": ["eval"],
    "eval-words": ["eval", "--metric", "fid,precision,psnr", "n=10", "truncation=0.7", "fake=a", "real=b"],
    "eval-keys": ["eval", "metric=fd,prdc", "metric.prdc.k=3", "extractor=torchvision", "model=resnet50", "data=mnist"],
    "eval-compare": ["eval", "compare", "run=a,b", "--metric", "kd", "--metric", "bleu,rougeL,bits_per_byte"],
    "eval-stats": ["eval", "stats", "data=digits", "out=s.npz"],
    "embed": ["embed", "lines.txt", "neighbours=2"],
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_configurations(stored: Callable[[str, Any], None], name: str) -> None:
    code, printed = aigc(*CONFIGURATIONS[name], "--cfg", "job")
    assert code == 0
    stored(f"cfg/{name}", yaml.safe_load(printed))


def shape(value: Any) -> Any:
    """The keys of a record and the types of its values: of a list those of each record, or the types there are."""
    if isinstance(value, dict):
        return {key: "..." if key == "versions" else shape(part) for key, part in value.items()}
    if not isinstance(value, list):
        return type(value).__name__
    parts = [shape(part) for part in value]
    return parts if any(isinstance(part, dict) for part in parts) else [*dict.fromkeys(map(str, parts))]


RECORDS = {
    "image": [
        "run=new/gan", "--metric", "fd,kd,cs,fd_infinity,prdc,vendi,memorization,class_accuracy", "n=150",
    ],
    "image-seeds": ["run=new/gan", "--metric", "fd", "n=20", "seeds=2", "truncation=0.7"],
    "image-reference": ["run=new/gan", "--metric", "fd", "n=20", "reference=old/vae"],
    "image-model": [
        "run=old/vae", "--metric", "reconstruction,likelihood,active_units", "n=20", "metric.likelihood.samples=2",
    ],
    "image-reconstructed": ["run=old/vae", "--metric", "prdc", "n=20", "mode=reconstruct"],
    "text": ["run=old/transformer", "n=8"],
    "text-continued": ["run=old/transformer", "--metric", "continuation,bleu,chrf,rouge", "n=6"],
    "text-infill": ["run=new/bert", "--metric", "infill,likelihood", "n=6"],
    "text-latents": ["run=new/vae_text", "--metric", "reconstruction_bleu,active_units,likelihood", "n=6"],
    "pairs": ["run=old/pairs", "n=6"],
    "files-image": [
        "fake=a.npz", "real=b.npz", "held_out=c.npz", "data=digits", "data.size=8", "--metric", "fd,memorization",
    ],
    "files-text": [
        "fake=fake.txt", "real=real.txt", "--metric", "bleu,chrf,rouge,distinct,self_bleu,repetition,copied",
    ],
    "stats": ["stats", "data=digits", "data.size=8", "--metric", "fd", "out=s.npz"],
    "stats-real": ["run=new/gan", "real=s.npz", "--metric", "fd", "n=20"],
    "compare": ["compare", "run=new/gan,old/vae", "--metric", "kd", "n=20", "seeds=2"],
    "compare-text": ["compare", "run=old/transformer,new/bert", "--metric", "likelihood"],
    "compare-records": ["compare", "run=outputs/old/pairs/eval/chrf.json,outputs/old/pairs/eval/chrf.json"],
}  # fmt: skip


def test_records(trained: dict[str, list[str]], stored: Callable[[str, Any], None]) -> None:
    """What ``--json`` prints, and that the files hold the same."""
    for name, words in RECORDS.items():
        if name == "compare-records":  # a name without the sum that it ends in
            path = next(Path("outputs/old/pairs/eval").glob("chrf-*.json"))
            words = [*words[:1], f"run={path},./{path}"]
        out = [] if name.startswith("stats") and name != "stats-real" else [f"out=records/{name}"]
        code, told = aigc("eval", *words, *out, "device=cpu", "--json")
        assert code == 0, name
        stored(f"records/{name}", shape(told))
        if "results" in told:
            files = [Path(file) for file in told["files"]]
            assert [json.loads(file.read_text()) for file in files if file.suffix == ".json"] == told["results"]
            assert [file.name.partition("-")[0] for file in files if file.suffix == ".json"] == [
                record["metric"] for record in told["results"]
            ]
            assert sorted(files) == sorted(Path("records", name).iterdir())


SAMPLES = {
    "gan": ["run=new/gan", "n=3"],
    "gan-classes": ["run=new/gan", "n=3", "class=7,0", "truncation=0.5", "seed=4"],
    "gan-array": ["run=new/gan", "n=3", "format=npz"],
    "gan-walk": ["run=new/gan", "n=2", "mode=interpolate", "frames=3"],
    "vae": ["run=old/vae", "n=3", "prior=gmm", "step=20"],
    "vae-reconstruct": ["run=old/vae", "n=2", "mode=reconstruct"],
    "vae-traverse": ["run=old/vae", "n=2", "mode=traverse", "frames=3"],
    "transformer": ["run=old/transformer", "n=2"],
    "transformer-prompt": ["run=old/transformer", "n=2", "prompt=the ", "max_tokens=5", "top_k=3"],
    "transformer-file": ["run=old/transformer", "prompt_file=prompts.txt", "max_tokens=5"],
    "bert": ["run=new/bert", "n=2"],
    "bert-infill": ["run=new/bert", "n=2", "mode=infill"],
    "bert-gaps": ["run=new/bert", "n=2", "mode=infill", "prompt=the ____ of"],
    "pairs": ["run=old/pairs", "n=2", "beam=2"],
    "pairs-prompt": ["run=old/pairs", "prompt=the red cat."],
    "vae_text": ["run=new/vae_text", "n=2"],
    "vae_text-reconstruct": ["run=new/vae_text", "n=2", "mode=reconstruct"],
    "vae_text-walk": ["run=new/vae_text", "n=1", "mode=interpolate", "prompt=a dog.", "to=the moon.", "frames=3"],
}


def test_samples(trained: dict[str, list[str]], stored: Callable[[str, Any], None]) -> None:
    """The folder that samples go to, its files, and the keys of what is told of them."""
    found = {}
    for name, words in SAMPLES.items():
        code, told = aigc("sample", *words, "device=cpu", "--json")
        assert code == 0, name
        out = Path(told["out"])
        rows = out / "samples.jsonl"
        row = json.loads(rows.read_text(encoding="utf-8").splitlines()[-1]) if rows.exists() else None
        record = json.loads((out / "samples.json").read_text())
        found[name] = {
            "out": str(
                out.relative_to("outputs") if not out.is_absolute() else out.relative_to(Path.cwd() / "outputs")
            ),
            "files": sorted(path.name for path in out.iterdir()),
            "told": shape(told),
            "record": shape(record),
            "row": row and shape(row),
            "arrays": _arrays(out / "samples.npz"),
            "values": {key: record[key] for key in ("label", "modality", "format", "n", "step", "seed", "controls")},
        }
    stored("samples", found)


def _arrays(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    with np.load(path) as archive:
        return {name: [str(archive[name].dtype), list(archive[name].shape)] for name in archive.files}


def test_files_of_runs(trained: dict[str, list[str]], stored: Callable[[str, Any], None]) -> None:
    for name, files in trained.items():
        curves = Path("outputs/new", name, "metrics.jsonl").read_text().splitlines()
        keys = sorted({tuple(json.loads(line)) for line in curves})
        stored(f"run-{name}", {"files": files, "curves": [list(row) for row in keys]})


def test_vectors(trained: dict[str, list[str]], stored: Callable[[str, Any], None]) -> None:
    code, told = aigc("embed", "prompts.txt", "run=new/bert", "neighbours=1", "device=cpu", "--json")
    assert code == 0
    stored("embed", {"told": shape(told), "file": Path(told["out"]).name, "arrays": _arrays(Path(told["out"]))})


def test_lists(trained: dict[str, list[str]], stored: Callable[[str, Any], None]) -> None:
    """There may be more models, datasets and metrics, and not fewer."""
    for what in ("models", "data", "metrics"):
        _, rows = aigc("ls", what, "--json")
        path = Path(__file__).parent / "stored" / f"ls-{what}.json"
        known = json.loads(path.read_text()) if path.exists() else []
        stored(f"ls-{what}", sorted({row["name"] for row in rows} & set(known)) or sorted(row["name"] for row in rows))
    _, rows = aigc("ls", "runs", "--json")
    found = {row["name"]: {**shape(row), "figures": sorted(row["figures"])} for row in rows}
    stored("ls-runs", {name: found[name] for name in ("old/vae", "old/pairs", "new/bert")})


def test_sweeps(stored: Callable[[str, Any], None]) -> None:
    words = ["model.network=mlp", "model.hidden=4", "model.latent=2", "data.size=8", "trainer.steps=1"]
    words += ["trainer.device=cpu", "trainer.sample_every=null", "outputs=swept"]
    code, _ = aigc("train", "-m", "model.loss=hinge,lsgan", *words)
    assert code == 0
    tables = [path.read_text().splitlines() for path in Path("swept").rglob("sweep.csv")]
    stored("sweep", [[table[0], len(table)] for table in tables])


ENDS = {
    0: [["--version"], ["--help"], ["help", "train"], ["ls"], ["completion", "bash"], ["train", "--cfg", "hydra"]],
    2: [
        ["trian"], ["train", "model=gann"], ["train", "model.lss=hinge"], ["train", "model.width=wide"],
        ["train", "trainer.steps=-1"], ["train", "--colour"], ["train", "+model._target_=os.system"],
        ["train", "model=transformer", "data=digits"], ["train", "--resume", "nowhere"], ["train", "word"],
        ["train", "--cfg", "job", "-m"], ["train", "data=image_folder"], ["train", "--plugin", "no_such_module"],
        ["sample", "run=nowhere"], ["sample", "run=old/vae", "n=0"], ["sample", "run=old/vae", "mode=infill"],
        ["sample", "run=old/vae", "tempratur=1"], ["sample", "run=old/vae", "step=3"],
        ["sample", "run=old/transformer", "prompt="], ["sample", "run=old/transformer", "prompt=Ω"],
        ["sample", "run=old/pairs", "format=png"],
        ["eval", "run=old/vae", "--metric", "fdd"], ["eval", "run=old/vae", "--metric", "infill"],
        ["eval", "run=old/transformer", "--metric", "fd"], ["eval", "run=old/vae", "--metric", "bleu"],
        ["eval", "compare", "run=old/vae"], ["eval", "run=old/vae", "out=lines.txt"], ["ls", "planets"], ["embed"],
        ["embed", "prompts.txt", "run=old/pairs"],
    ],
    3: [
        ["train", "data=image_folder", "data.root=nowhere"], ["train", "data=text", "data.root=a.npz", "model=bert"],
        ["eval", "--metric", "bleu", "fake=none.txt", "real=none.txt"],
        ["eval", "compare", "run=outputs/old/vae/best.json,outputs/old/vae/status.json"],
        ["eval", "fake=a.npz", "real=lines.txt", "data=digits", "data.size=8", "--metric", "fd"],
    ],
    4: [
        ["train", "model=vae", "data.size=8", "model.width=4", "optimizer=sgd", "optimizer.lr=1e30",
         "trainer.steps=20", "trainer.device=cpu", "run_dir=broken"],
    ],
}  # fmt: skip


@pytest.mark.parametrize(("code", "words"), [(code, words) for code, lines in ENDS.items() for words in lines], ids=str)
def test_exit_codes(code: int, words: list[str]) -> None:
    assert aigc(*words)[0] == code
