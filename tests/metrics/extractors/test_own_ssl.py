"""The extractor that learns without labels: from any pictures, once, the same each time, refused where it cannot."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from aigc_cli.data.images import ImageDataset
from aigc_cli.data.open import Splits
from aigc_cli.errors import ConfigError, DataError
from aigc_cli.metrics.extractors import own_ssl
from aigc_cli.metrics.extractors.base import Extractor, Sources
from aigc_cli.metrics.extractors.own_ssl import OwnSSL
from aigc_cli.metrics.views import Views, build_extractor
from aigc_cli.modalities.base import modality
from aigc_cli.modalities.image_network import ImageNetwork

Blobs = Callable[..., ImageDataset]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(own_ssl, "_FEWEST", 600)
    monkeypatch.setattr(own_ssl, "_MOST", 600)
    monkeypatch.setenv("AIGC_CACHE", str(tmp_path / "cache"))
    return tmp_path


def sources(blobs: Blobs, labelled: bool = False, **kind: object) -> Sources:
    parts = {"train": blobs(100, 0, labelled, **kind), "test": blobs(40, 1, labelled, **kind)}
    return Sources(splits=Splits("blobs", parts.__getitem__))  # type: ignore[arg-type]


def kept(folder: Path) -> list[Path]:
    return sorted((folder / "cache" / "self-supervised").iterdir())


def extracted(extractor: Extractor, data: ImageDataset) -> torch.Tensor:
    held = data.resident()
    assert held is not None
    return extractor(held.content)["features"]


def test_it_is_learnt_once_and_is_the_same_when_learnt_again(
    blobs: Blobs, quick: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = torch.random.get_rng_state()
    first = build_extractor("own-ssl", sources(blobs))
    assert torch.equal(before, torch.random.get_rng_state())
    assert (first.name, dict(first.widths), first.canonical) == ("own-ssl", {"features": 128}, False)
    assert 0 < first.facts["told_apart"] <= 1
    assert "training own-ssl, the extractor, on 100 images (once; it is kept)" in capsys.readouterr().err
    assert extracted(first, blobs(10, 3)).shape == (10, 128)
    again = build_extractor("own-ssl", sources(blobs))
    assert again.checksum == first.checksum
    assert "training" not in capsys.readouterr().err
    (file,) = kept(quick)
    file.unlink()
    assert build_extractor("own-ssl", sources(blobs)).checksum == first.checksum


def test_neither_labels_nor_what_training_is_shown_make_a_difference(
    blobs: Blobs, quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = blobs(100, 0).resident()
    assert held is not None
    changed = ImageDataset(held.content, None, views=("flip", "crop", "colour"))
    parts = {"plain": blobs(100, 0, False), "labelled": blobs(100, 0, True), "changed": changed}
    sums = set()
    for name, data in parts.items():
        monkeypatch.setenv("AIGC_CACHE", str(quick / name))
        splits = Splits(name, lambda split, data=data: data)  # type: ignore[misc]
        sums.add(build_extractor("own-ssl", Sources(splits=splits)).checksum)
    assert len(sums) == 1


def test_other_pictures_have_another(blobs: Blobs, quick: Path) -> None:
    grey, coloured = (build_extractor("own-ssl", sources(blobs, channels=channels)) for channels in (1, 3))
    assert grey.checksum != coloured.checksum
    assert len(kept(quick)) == 2


def test_it_is_usual_without_labels_and_where_labels_say_nothing(
    blobs: Blobs, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aigc_cli.metrics.extractors.classifier._FEWEST", 1_500)
    assert Views(sources(blobs)).usual_extractor == "own-ssl"
    assert Views(Sources()).usual_extractor == "own-ssl"
    assert Views(sources(blobs, labelled=True)).usual_extractor == "classifier"
    parts = {}
    for split, seed in (("train", 0), ("test", 1)):
        held = blobs(200, seed).resident()
        assert held is not None
        parts[split] = ImageDataset(held.content, torch.arange(200) // 2 % 2, ("a", "b"))  # chance decides the class
    assert Views(Sources(splits=Splits("x", parts.__getitem__))).usual_extractor == "own-ssl"  # type: ignore[arg-type]
    assert "own-ssl, which learns without labels, takes its place" in capsys.readouterr().err


def test_files_serve_where_there_is_no_dataset(quick: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(quick / "real.npz", images=rng.integers(0, 256, (40, 8, 8), dtype=np.uint8))
    items = modality("image").read(quick / "real.npz")
    first, again = (OwnSSL(own_ssl.PlainConfig(name="own-ssl"), Sources(items=items)) for _ in range(2))
    assert first.checksum == again.checksum
    assert len(kept(quick)) == 1


def test_what_it_cannot_learn_from_is_refused(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="none are named"):
        build_extractor("own-ssl", Sources())
    one = blobs(1)
    with pytest.raises(DataError, match="a single image"):
        build_extractor("own-ssl", Sources(splits=Splits("one", lambda split: one)))
    monkeypatch.delattr(ImageNetwork, "augment")  # as the network of a plugin's modality may have none
    with pytest.raises(ConfigError, match="cannot learn from images: their network has no augment"):
        build_extractor("own-ssl", sources(blobs))


def test_an_image_seen_in_another_way_is_neither_mirrored_nor_far_from_it() -> None:
    torch.manual_seed(0)
    ramp = torch.linspace(-1, 1, 16).expand(200, 1, 16, 16)
    seen = ImageNetwork(1, 16, 1).augment(ramp)
    assert seen.shape == ramp.shape
    assert bool((seen[..., -1] > seen[..., 0]).all())
    assert float(seen.abs().max()) < 2
    assert bool(torch.isfinite(ImageNetwork(3, 5, 1).augment(torch.zeros(2, 3, 5, 7))).all())
