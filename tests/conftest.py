"""What every test shares: one thread, no display, a cache of its own, and the folder of real data."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from aigc_cli.modalities.samples import Provenance
    from aigc_cli.runs import Run

# Read when torch and matplotlib are first imported, which is after this file.
for threads in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(threads, "1")
os.environ["MPLBACKEND"] = "Agg"

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def aigc_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder for this session, so that no test reads or fills the user's own."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIGC_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module", autouse=True)
def plugins_are_forgotten() -> Iterator[None]:
    """What the tests of one file import as a plugin, those of the next do not see."""
    yield
    if "aigc_cli.registry" not in sys.modules:
        return
    from aigc_cli import registry
    from aigc_cli.modalities.base import modality

    for key, known in list(registry._components.items()):
        if known.build.__module__ in registry._plugins:
            del registry._components[key]
    for name in registry._plugins:
        sys.modules.pop(name, None)
    registry._plugins.clear()
    registry.of_runs.clear()
    modality.cache_clear()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data that tests may use; skips where it is absent."""
    folder = Path(os.environ.get("AIGC_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder} (set AIGC_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def tiny_config() -> dict[str, Any]:
    """The configuration of :func:`tiny_run`."""
    from aigc_cli.config.compose import compose

    words = ["data.size=8", "model.width=8", "model.max_width=16", "model.latent=8", "model.conditional=false"]
    return compose("train", ["model=gan", "data=digits", *words])


@pytest.fixture
def tiny_run(tmp_path: Path, tiny_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Run:
    """A GAN on 8x8 digits with fresh weights as its checkpoints of steps 3 and 5, in the current folder's outputs."""
    import torch

    from aigc_cli.modalities.base import DataSpec
    from aigc_cli.models.base import build_model
    from aigc_cli.new_run import create_run
    from aigc_cli.training.checkpoint import CheckpointFolder

    monkeypatch.chdir(tmp_path)
    config = copy.deepcopy(tiny_config)
    spec = DataSpec("image", (1, 8, 8), tuple("0123456789"), fingerprint="0" * 64)
    run = create_run(config)
    run.save_config(config, spec)
    for step in (3, 5):
        torch.manual_seed(step)
        model = build_model(config["model"], spec)
        CheckpointFolder(run.checkpoints).save(step, {"model": model.state_dict()}, {"step": step})
    run.set_status("complete", 5)
    return run


VQVAE = ["model=vqvae", "model.codes=16", "model.code_dimensions=4", "model.blocks=1"]


@pytest.fixture
def tokenizer_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Run:
    """A VQ-VAE on 8x8 digits with fresh weights, 2x2 codes of 16, in the current folder's outputs; or a model of other
    words, as the parameter."""
    import torch

    from aigc_cli.config.compose import compose
    from aigc_cli.data.open import open_dataset
    from aigc_cli.models.base import build_model
    from aigc_cli.new_run import create_run
    from aigc_cli.training.checkpoint import CheckpointFolder

    monkeypatch.chdir(tmp_path)
    words = ["data.size=8", "model.width=8", *getattr(request, "param", VQVAE)]
    config = compose("train", ["data=digits", *words])
    spec = open_dataset(config["data"], "train").spec
    torch.manual_seed(0)
    model = build_model(config["model"], spec)
    if config["model"]["name"] == "vqvae":
        quantizer: Any = model.quantizer
        quantizer.sums.normal_().mul_(0.1)  # which training would have started from what it sees
        quantizer.sizes.fill_(1)
    run = create_run(config)
    run.save_config(config, spec)
    CheckpointFolder(run.checkpoints).save(1, {"model": model.state_dict()}, {"step": 1})
    run.set_status("complete", 1)
    return run


@pytest.fixture
def small_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `fd` looks through learns from few images; the cache is the session's, so all tests train it once."""
    from aigc_cli.metrics.extractors import classifier, own_ssl

    monkeypatch.setattr(classifier, "_FEWEST", 4_000)
    monkeypatch.setattr(own_ssl, "_FEWEST", 1_000)
    monkeypatch.setattr(own_ssl, "_MOST", 1_000)


@pytest.fixture
def registered_toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the model of tests/toy.py known as model=toy."""
    from toy import TOY

    from aigc_cli import registry

    monkeypatch.setitem(registry._components, ("model", "toy"), TOY)


@pytest.fixture
def toy_here(registered_toy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, whose own configurations have model=toy."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs" / "model").mkdir(parents=True)
    (tmp_path / "configs" / "model" / "toy.yaml").write_text("# A toy\nname: toy\nconditional: false\n")
    return tmp_path


@pytest.fixture
def random_inception(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The extractor with a network that takes no time; the real one is compared with its reference elsewhere."""
    import torch

    from aigc_cli.metrics.extractors import pretrained

    class Small(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            means = images.float().mean(dim=(2, 3)) / 255
            return means.repeat(1, 4), means

    monkeypatch.setattr(pretrained, "_inception", lambda state: Small())
    monkeypatch.setattr(pretrained.Inception, "widths", {"features": 12, "logits": 3})
    torch.save({"a": torch.zeros(1)}, tmp_path / "w.pth")
    return tmp_path / "w.pth"


@pytest.fixture
def provenance() -> Callable[..., Provenance]:
    """Makes the provenance of some samples, with changes."""
    from aigc_cli.modalities.samples import Provenance

    def make(**changes: object) -> Provenance:
        values = {
            "modality": "image", "format": "png", "run": "gan-digits/a", "model": "gan", "data": "digits", "step": 7,
            "model_checksum": "ab" * 32, "seed": 3, "controls": {"truncation": 0.5},
        }  # fmt: skip
        return Provenance(**{**values, **changes})  # type: ignore[arg-type]

    return make
