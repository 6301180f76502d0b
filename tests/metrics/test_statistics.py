"""Statistics in pytorch-fid's format: read from anyone, written with a stamp, and never mistaken for images."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aigc_cli.errors import DataError
from aigc_cli.metrics.distances import frechet_distance
from aigc_cli.metrics.extractors.base import FeatureStatistics
from aigc_cli.metrics.statistics import Statistics, is_statistics, write_statistics

D = 5


class Extractor:
    name = "pixels"
    checksum = "0" * 64
    canonical = False
    widths = {"features": D}  # noqa: RUF012
    facts: dict[str, Any] = {"preprocessing": "none"}  # noqa: RUF012

    def __call__(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        raise NotImplementedError


def statistics(n: int = 60) -> FeatureStatistics:
    return FeatureStatistics.of(torch.from_numpy(np.random.default_rng(0).normal(size=(n, D))))


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    own, path = statistics(), tmp_path / "s.npz"
    stamp = {"extractor_sha256": Extractor.checksum, "preprocessing": "none", "dtype": "float32"}
    write_statistics(path, own, stamp)
    assert is_statistics(path)
    read = Statistics(path)
    assert (len(read), read.stamp) == (60, stamp)
    back = read.moments(Extractor(), "float32")
    assert torch.allclose(back.covariance, own.covariance, atol=1e-14)
    assert float(frechet_distance(back, own)) < 1e-12


def test_readers_of_the_format_read_ours(tmp_path: Path) -> None:
    write_statistics(tmp_path / "s.npz", statistics(), {})
    with np.load(tmp_path / "s.npz") as file:  # as pytorch-fid does, which allows no pickles either
        assert file["mu"][:].shape == (D,)
        assert file["sigma"][:].shape == (D, D)
        assert json.loads(str(file["stamp"])) == {}


def test_statistics_of_someone_else_serve_without_a_number_of_images(tmp_path: Path) -> None:
    own = statistics()
    np.savez(tmp_path / "s.npz", mu=own.mean.numpy(), sigma=own.covariance.numpy())
    read = Statistics(tmp_path / "s.npz")
    assert len(read) == 0
    assert float(frechet_distance(read.moments(Extractor(), "float32"), own)) < 1e-12


@pytest.mark.parametrize(
    ("key", "value"), [("extractor_sha256", "1" * 64), ("preprocessing", "clean"), ("dtype", "bfloat16")]
)
def test_statistics_under_other_conditions_are_refused(tmp_path: Path, key: str, value: str) -> None:
    write_statistics(tmp_path / "s.npz", statistics(), {key: value})
    with pytest.raises(DataError, match=f"of another {key.removesuffix('_sha256')}"):
        Statistics(tmp_path / "s.npz").moments(Extractor(), "float32")


def test_another_width_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", mu=np.zeros(3), sigma=np.eye(3))
    with pytest.raises(DataError, match="of 3 features"):
        Statistics(tmp_path / "s.npz").moments(Extractor(), "float32")


BROKEN = {
    "shapes": {"mu": np.zeros(3), "sigma": np.eye(4)},
    "nan": {"mu": np.full(3, np.nan), "sigma": np.eye(3)},
    "lopsided": {"mu": np.zeros(2), "sigma": np.array([[1.0, 5.0], [0.0, 1.0]])},
    "negative": {"mu": np.zeros(2), "sigma": -np.eye(2)},
    "objects": {"mu": np.array([None, print]), "sigma": np.eye(2)},
    "stamp": {"mu": np.zeros(2), "sigma": np.eye(2), "stamp": np.array("{")},
    "no sigma": {"mu": np.zeros(2)},
    "indefinite": {"mu": np.zeros(2), "sigma": np.array([[1.0, 5.0], [5.0, 1.0]])},
    "words": {"mu": np.array(["a", "b"]), "sigma": np.eye(2)},
    "complex": {"mu": np.zeros(2), "sigma": np.eye(2) * 1j},
    "many n": {"mu": np.zeros(2), "sigma": np.eye(2), "n": np.array([2, 3])},
    "negative n": {"mu": np.zeros(2), "sigma": np.eye(2), "n": -5},
    "nan n": {"mu": np.zeros(2), "sigma": np.eye(2), "n": np.nan},
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_mean_and_covariance_is_refused(tmp_path: Path, name: str) -> None:
    np.savez(tmp_path / "s.npz", **BROKEN[name])  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"s\.npz"):
        Statistics(tmp_path / "s.npz")


@pytest.mark.parametrize("dtype", [np.float32, np.longdouble])
def test_rounded_and_singular_covariances_are_taken(tmp_path: Path, dtype: Any) -> None:
    rows = np.random.default_rng(0).normal(size=(6, 3)) @ np.random.default_rng(1).normal(size=(3, 12))
    for name, sigma in (("a", np.cov(rows, rowvar=False)), ("b", np.zeros((12, 12)))):
        np.savez(tmp_path / name, mu=rows.mean(axis=0).astype(dtype), sigma=sigma.astype(dtype))
        assert len(Statistics(tmp_path / f"{name}.npz")) == 0


def test_images_are_no_statistics(tmp_path: Path) -> None:
    np.savez(tmp_path / "i.npz", images=np.zeros((2, 4, 4), np.uint8))
    (tmp_path / "t.npz").write_bytes(b"torn")
    assert not is_statistics(tmp_path / "i.npz")
    assert not is_statistics(tmp_path / "t.npz")
    assert not is_statistics(tmp_path)
