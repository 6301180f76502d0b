"""CIFAR-10, MNIST and Fashion-MNIST, at the addresses and with the sums that torchvision knows."""

from __future__ import annotations

import gzip
import hashlib
import json
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic.dataclasses import dataclass

from aigc_cli.config.schema import STRICT
from aigc_cli.data.archives import unpack
from aigc_cli.data.base import Dataset, Split
from aigc_cli.data.cache import cache_dir, find_root
from aigc_cli.data.download import download
from aigc_cli.data.image_sets import decode_once
from aigc_cli.data.images import ImageDataset, Size, rescale
from aigc_cli.data.parquet import parts_of, read_parquet
from aigc_cli.data.splits import Cut, Fraction, rows_of
from aigc_cli.errors import DataError
from aigc_cli.files import checksum, write_atomically
from aigc_cli.registry import register

if TYPE_CHECKING:
    from torch import Tensor

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
LARGEST_IDX = 1 << 27  # bytes; the largest of the files has 47 million


@dataclass(config=STRICT, frozen=True, kw_only=True)
class _Config:
    root: str | None
    size: Size
    flip: bool
    val_fraction: Fraction


@dataclass(config=STRICT, frozen=True, kw_only=True)
class CIFAR10Config(_Config):
    """See ``configs/data/cifar10.yaml``."""

    name: Literal["cifar10"]


@dataclass(config=STRICT, frozen=True, kw_only=True)
class MNISTConfig(_Config):
    """See ``configs/data/mnist.yaml``."""

    name: Literal["mnist"]


@dataclass(config=STRICT, frozen=True, kw_only=True)
class FashionMNISTConfig(_Config):
    """See ``configs/data/fashion_mnist.yaml``."""

    name: Literal["fashion_mnist"]


@register("data", "cifar10", CIFAR10Config)
def cifar10(config: CIFAR10Config, split: Split) -> Dataset:
    """60,000 photographs of 32x32 in 10 classes (Krizhevsky 2009); its own test part, validation cut from training.

    `root` may hold the Hugging Face parquet files, ``cifar-10-batches-py`` or ``cifar-10-python.tar.gz``. torchvision
    unpickles its batches only after their sums were found right.
    """
    root = None if config.root is None else find_root(config.root)
    copied = root is not None and (root.suffix == ".parquet" or any(root.rglob("*.parquet")))
    if root is not None and copied:
        content, labels = _cifar10_parquet(root, train=split != "test")
    else:
        content, labels = _cifar10_batches(_cifar10_home(root), train=split != "test")
    dataset = _split_of(config, split, content, labels, CIFAR10_CLASSES)
    dataset.original = not copied and config.size == 32  # parquet may hold lossy copies
    return dataset


def _cifar10_parquet(root: Path, *, train: bool) -> tuple[Tensor, np.ndarray]:
    import torch

    groups = parts_of(root)
    if not {"train", "test"} <= set(groups):
        raise DataError(
            f"{root} lacks train-*.parquet or test-*.parquet",
            "download both parts of https://huggingface.co/datasets/uoft-cs/cifar10 into it",
        )
    paths = groups["train" if train else "test"]
    files = read_parquet(paths, (3, 32, 32))
    if files.labels is None or files.labels.max() >= len(CIFAR10_CLASSES):
        raise DataError(f"{paths[0]} does not hold the labels of CIFAR-10", "for other images use data=parquet")
    stamps = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in paths]
    key = hashlib.sha256(json.dumps(stamps).encode()).hexdigest()[:16]
    pixels = decode_once(files, cache_dir() / "data" / "cifar10" / f"pixels-{key}.npy")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nothing writes to it
        return torch.from_numpy(pixels), files.labels


def _cifar10_home(root: Path | None) -> Path:
    """The folder with ``cifar-10-batches-py`` in it, downloaded and unpacked where that has to be."""
    from torchvision.datasets import CIFAR10

    batches, archive = CIFAR10.base_folder, CIFAR10.filename
    unpacked = cache_dir() / "data" / "cifar10" / "unpacked"
    places = [unpacked] if root is None else [root, root.parent]
    for place in places:
        if (place / batches).is_dir() and root in (None, place, place / batches):
            return place
    if root is None:
        packed = download([CIFAR10.url], unpacked.with_name(archive), md5=CIFAR10.tgz_md5)
    else:
        packed = root if root.is_file() else root / archive
        expected = f"{CIFAR10.url} (md5 {CIFAR10.tgz_md5})"
        if not packed.is_file():
            raise DataError(
                f"there is no CIFAR-10 in {root}: neither train-*.parquet and test-*.parquet, nor {batches}/, "
                f"nor {archive}",
                f"put {expected} there, or leave data.root= out to have it downloaded",
            )
        if checksum(packed, "md5") != CIFAR10.tgz_md5:
            raise DataError(f"{packed} has the wrong sum: it is damaged, or another file", f"get {expected} again")
    if (unpacked / batches).is_dir():  # torchvision looks at the sum of each of its files
        return unpacked
    return unpack(packed, unpacked, max_bytes=10**9)


def _cifar10_batches(home: Path, *, train: bool) -> tuple[Tensor, np.ndarray]:
    import torch
    from torchvision.datasets import CIFAR10

    try:
        batches = CIFAR10(home, train=train, download=False)
    except (RuntimeError, OSError, ValueError, KeyError, EOFError) as error:
        raise DataError(
            f"{home / CIFAR10.base_folder} is damaged: {error}",
            f"remove it and unpack {CIFAR10.url} (md5 {CIFAR10.tgz_md5}) again",
        ) from error
    return torch.from_numpy(batches.data).permute(0, 3, 1, 2), np.array(batches.targets, dtype=np.int64)


@register("data", "mnist", MNISTConfig)
def mnist(config: MNISTConfig, split: Split) -> ImageDataset:
    """70,000 handwritten digits of 28x28 (LeCun et al. 1998); its own test part, validation cut from training."""
    return _idx_dataset(config, split, "mnist", "MNIST", [str(digit) for digit in range(10)])


@register("data", "fashion_mnist", FashionMNISTConfig)
def fashion_mnist(config: FashionMNISTConfig, split: Split) -> ImageDataset:
    """70,000 pictures of clothes of 28x28 (Xiao et al. 2017); its own test part, validation cut from training."""
    from torchvision.datasets import FashionMNIST

    return _idx_dataset(config, split, "fashion_mnist", "FashionMNIST", FashionMNIST.classes)


def _idx_dataset(config: Any, split: Split, name: str, kind: str, classes: Sequence[str]) -> ImageDataset:
    from torch.nn.functional import pad
    from torchvision.datasets.mnist import read_image_file, read_label_file

    images, labels = _idx_files(config.root, name, kind, "t10k" if split == "test" else "train")
    try:
        content, targets = read_image_file(str(images)).unsqueeze(1), read_label_file(str(labels)).numpy()
        if len(content) != len(targets) or targets.max() >= len(classes):
            raise ValueError("the labels do not fit the images")
    except (OSError, ValueError, AssertionError, TypeError, KeyError, IndexError, RuntimeError) as error:
        raise DataError(f"{images} and {labels.name} are damaged: {error}", "remove them and get them again") from error
    if config.size == 32:
        content = pad(content, (2, 2, 2, 2))  # the customary way to a power of two: no pixel is changed
    return _split_of(config, split, content, targets, classes)


def _idx_files(root: str | None, name: str, kind: str, prefix: str) -> Iterator[Path]:
    """The plain files of images and of labels whose names begin with `prefix`, fetched or unpacked as needed."""
    import torchvision

    source = getattr(torchvision.datasets, kind)
    cached = cache_dir() / "data" / name
    base = cached if root is None else find_root(root)
    folders = [base / kind / "raw", base / "raw", base]
    for file, md5 in source.resources:
        if not file.startswith(prefix):
            continue
        packed = [folder / file for folder in folders if (folder / file).is_file()]
        plain = [path for folder in folders if (path := (folder / file).with_suffix("")).is_file()]
        if plain:
            yield plain[0]
            continue
        if not packed and root is None:
            packed = [download([mirror + file for mirror in source.mirrors], cached / file, md5=md5)]
        if not packed:
            listed = ", ".join(str(folder) for folder in folders)
            raise DataError(
                f"there is no {file} (packed or not) in {listed}",
                f"put {source.mirrors[0]}{file} (md5 {md5}) there, or leave data.root= out to have it downloaded",
            )
        if checksum(packed[0], "md5") != md5:
            raise DataError(
                f"{packed[0]} has the wrong sum: it is damaged, or another file",
                f"get {source.mirrors[0]}{file} (md5 {md5}) again",
            )
        yield _gunzip(packed[0], (cached / file).with_suffix(""))


def _gunzip(packed: Path, plain: Path) -> Path:
    try:
        with gzip.open(packed) as file:
            content = file.read(LARGEST_IDX + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{packed} is damaged: {error}", "get it again") from error
    if len(content) > LARGEST_IDX:
        raise DataError(f"{packed} unpacks to more than {LARGEST_IDX} bytes", "get it again from a source you trust")
    plain.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(plain, content)
    return plain


def _split_of(config: Any, split: Split, content: Tensor, labels: np.ndarray, classes: Sequence[str]) -> ImageDataset:
    """The test part as it is, or the share of the training part that `split` takes."""
    import torch

    rows = np.arange(len(content))
    if split != "test":
        rows = rows_of(split, len(content), Cut(val=config.val_fraction), config.name)
    index = torch.from_numpy(rows)
    chosen = rescale(content[index].contiguous(), config.size)
    return ImageDataset(chosen, torch.from_numpy(labels)[index], classes, flip=config.flip)
