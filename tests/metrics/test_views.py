"""What metrics see of items."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from noise import ALL, FD, generated, ready, side
from torch import Tensor

from aigc_cli.metrics.extractors.base import Extractor, Sources
from aigc_cli.metrics.items import DatasetItems
from aigc_cli.metrics.views import Key, Views, ahead, build_extractor

Make = Callable[..., Tensor]

pytestmark = pytest.mark.usefixtures("pixels")


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("AIGC_CACHE", str(tmp_path))
    return tmp_path


TF32: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)


@pytest.fixture(params=[True, False])
def allowed(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Whether TF32 is, for the time of a test."""
    before = [backend.allow_tf32 for backend in TF32]
    for backend in TF32:
        backend.allow_tf32 = request.param
    yield request.param
    for backend, value in zip(TF32, before, strict=True):
        backend.allow_tf32 = value


def test_features_are_computed_without_tf32(images: Make, allowed: bool) -> None:
    seen = []

    def extract(batch: Tensor) -> dict[str, Tensor]:
        seen.extend(backend.allow_tf32 for backend in TF32)
        return {"features": batch.flatten(1).float()}

    views, keys = Views(Sources(), 16), [Key("recording", "features")]
    views._extractors["recording"] = cast(Extractor, extract)
    assert len(list(views.rows(side(images(30)), "real", keys))) == 2
    next(part := views.rows(side(images(30)), "real", keys))
    part.close()
    assert seen == [False] * 6
    assert [backend.allow_tf32 for backend in TF32] == [allowed] * 2


def test_features_of_real_images_are_computed_once(images: Make, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = images(30), images(30, seed=1)
    first = ready(ALL, side(real)).of(generated(fake))
    (kept,) = (cache / "features").iterdir()
    seen = []
    original = DatasetItems.batches
    monkeypatch.setattr(DatasetItems, "batches", lambda self, size: seen.append(size) or original(self, size))
    second = ready(ALL, side(real)).of(generated(fake))
    assert not seen
    assert [result.generated for result in first] == [result.generated for result in second]
    kept.write_bytes(kept.read_bytes()[:100])  # as a kill or a full disk might leave it
    third = ready(ALL, side(real)).of(generated(fake))
    assert seen
    assert [result.generated for result in first] == [result.generated for result in third]


def test_other_weights_do_not_share_features(images: Make, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready({"fd": FD}, side(images(30)))
    extractor = build_extractor("pixels", Sources())
    monkeypatch.setattr(type(extractor), "checksum", "1" * 64)
    ready({"fd": FD}, side(images(30)))
    assert len(list((cache / "features").iterdir())) == 2


def test_items_come_in_order() -> None:
    assert list(ahead(iter(range(50)))) == list(range(50))


def test_it_works_while_the_last_item_is_used() -> None:
    made: list[int] = []

    def work() -> Iterator[int]:
        for i in range(10):
            made.append(i)
            yield i

    items = ahead(work(), depth=2)
    assert next(items) == 0
    deadline = time.monotonic() + 5
    while len(made) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert made == [0, 1, 2]  # one used, two kept: never all of them
    assert list(items) == list(range(1, 10))


def test_an_error_comes_in_its_place() -> None:
    def work() -> Iterator[int]:
        yield 1
        raise ValueError("here")

    items = ahead(work())
    assert next(items) == 1
    with pytest.raises(ValueError, match="here"):
        next(items)


def test_giving_up_ends_the_thread() -> None:
    def forever() -> Iterator[int]:
        while True:
            yield 0

    before = threading.active_count()
    items = ahead(forever())
    next(items)
    items.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
