"""Imports run one way, and nothing heavy is imported before it is needed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import aigc_cli

PACKAGE = Path(aigc_cli.__file__).parent
#: Each layer may import itself and those before it; what shares a line is one layer. A folder stands for all in it.
LAYERS = (
    ("errors", "registry", "randomness", "progress", "files", "locks", "environment", "threads"),
    ("config",),
    ("nn",),
    ("modalities", "runs", "exported_run", "new_run", "run_index", "data"),
    ("models",),
    ("training",),
    ("sampling", "metrics"),
    ("monitor",),
    ("api",),
    ("serve",),
    ("reports", "export"),
    ("commands",),
    ("cli",),
    ("__main__",),
)
#: Imports that still climb, until what they name has moved down.
CLIMBS: set[tuple[Path, str]] = set()
RANK = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}
HEAVY = ("torch", "torchvision", "torchmetrics", "torch_fidelity", "sklearn", "matplotlib", "pyarrow", "scipy")
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if "configs" not in path.parts)


def imports_of(module: Path) -> set[str]:
    """The dotted names that a module imports, anywhere in it: within functions and for type checkers too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse((PACKAGE / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: line {node.lineno} is a relative import"
            assert node.module is not None
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def part_of(dotted: str) -> str | None:
    """The layer's part that a dotted name of ours belongs to."""
    words = dotted.split(".")
    return words[1] if words[0] == "aigc_cli" and len(words) > 1 and words[1] != "__version__" else None


@pytest.mark.parametrize("module", [path for path in MODULES if path != Path("__init__.py")], ids=str)
def test_imports_run_one_way(module: Path) -> None:
    own = module.parts[0].removesuffix(".py")
    assert own in RANK, f"{module} belongs to no layer: add it to LAYERS"
    for part in filter(None, map(part_of, imports_of(module))):
        assert part in RANK, f"{module} imports aigc_cli.{part}, which belongs to no layer"
        assert RANK[part] <= RANK[own] or (module, part) in CLIMBS, (
            f"{module} ({own}) imports {part}, which comes after it"
        )


def test_the_package_itself_imports_nothing() -> None:
    assert imports_of(Path("__init__.py")) <= {"importlib", "importlib.import_module"}


def loaded_by(*arguments: str, code: int = 0) -> set[str]:
    """The modules in memory after a command that ends with an exit code."""
    script = (
        "import runpy, sys\n"
        f"sys.argv = ['aigc', *{arguments!r}]\n"
        "try: runpy.run_module('aigc_cli', run_name='__main__')\n"
        f"except SystemExit as end: assert (end.code or 0) == {code}, end.code\n"
        "print('\\n' + ' '.join(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "words",
    [(), ("--help",), ("--version",), ("train", "--help"), ("sample", "--help"), ("eval", "-h"), ("ls", "--help")],
    ids=" ".join,
)
def test_help_imports_nothing_heavy(words: tuple[str, ...]) -> None:
    assert not loaded_by(*words) & {*HEAVY, "numpy", "hydra", "omegaconf", "pydantic"}


@pytest.mark.parametrize("words", [("train", "--cfg", "job"), ("ls", "models"), ("ls", "data")], ids=" ".join)
def test_looking_at_a_configuration_imports_nothing_heavy(words: tuple[str, ...]) -> None:
    assert not loaded_by(*words) & set(HEAVY)


@pytest.mark.parametrize(
    "words", [("train", "model=gna"), ("train", "-m", "model=gna,gan"), ("sample", "data=digits")], ids=" ".join
)
def test_a_misspelt_word_is_refused_before_anything_heavy_is_imported(words: tuple[str, ...]) -> None:
    assert not loaded_by(*words, code=2) & set(HEAVY)


#: What torch, or what we build on, imports beside what it is asked for: a second or two each, and 150 MB.
ASIDE = {"torch._dynamo", "torch._inductor", "sympy", "pandas", "scipy", "sklearn.utils", "transformers", "torchvision"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    folder = tmp_path_factory.mktemp("imports") / "run"
    words = ("model=vae", "trainer.steps=1", "trainer.device=cpu", "trainer.samples=4", f"run_dir={folder}")
    return folder, loaded_by("train", *words)


def test_training_imports_neither_the_compiler_nor_what_measures(run: tuple[Path, set[str]]) -> None:
    _, loaded = run
    assert not loaded & {*ASIDE, "torchmetrics", "torch.distributed.fsdp"}
    assert "matplotlib" in loaded  # its curves are drawn


def test_sampling_imports_neither_what_draws_nor_what_measures(run: tuple[Path, set[str]], tmp_path: Path) -> None:
    folder, _ = run
    loaded = loaded_by("sample", f"run={folder}", "n=2", f"out={tmp_path / 'samples'}", "device=cpu")
    assert not loaded & {*ASIDE, "torchmetrics", "matplotlib"}


def test_a_metric_brings_only_its_base_along_and_the_rest_of_torchmetrics_when_asked() -> None:
    script = (
        "import sys\nfrom aigc_cli.metrics.base import Metric\nprint(*sys.modules)\n"
        "import torchmetrics\nassert issubclass(Metric, torchmetrics.Metric)\n"
        "assert torchmetrics.MeanMetric and torchmetrics.functional and not hasattr(torchmetrics, 'nothing')\n"
        "from torchmetrics.image import StructuralSimilarityIndexMeasure\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {*ASIDE, "torchmetrics.functional"}
