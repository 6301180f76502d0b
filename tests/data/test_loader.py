import gc
import multiprocessing
import os
import signal
import sys

import numpy as np
import pytest
import torch

from aigc_cli.data.images import EncodedImages, ImageDataset, StreamedImages
from aigc_cli.data.loader import Loader, _in_worker, batches_in_order
from aigc_cli.errors import DataError
from aigc_cli.modalities.base import Batch
from aigc_cli.randomness import permutation

N = 23


def pixels(n: int = N) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 3, 4, 4), dtype=np.uint8)


def held(flip: bool = True) -> ImageDataset:
    return ImageDataset(
        torch.from_numpy(pixels()), torch.arange(N), [str(i) for i in range(N)], views=["flip"] if flip else []
    )


class Files(EncodedImages):
    """Files whose content is their pixels."""

    def decode(self, index: int) -> np.ndarray:
        return self.read(index)


def streamed(decode=None, flip: bool = True) -> StreamedImages:
    data = pixels()
    names = [str(i) for i in range(N)]
    read = decode or (lambda i: data[i])
    files = Files(
        read=read, keys=range(N), shape=(3, 4, 4), names=names, identity="", labels=np.arange(N), classes=names
    )
    return StreamedImages(files, "", views=["flip"] if flip else [])


def loader(dataset, **changes) -> Loader:
    return Loader(dataset, **{"batch_size": 5, "seed": 3, "device": "cpu", **changes})


def same(one: Batch, other: Batch) -> bool:
    return torch.equal(one.content, other.content) and torch.equal(one.labels, other.labels)


def test_an_epoch_is_every_item_once_in_the_order_of_seed_and_epoch():
    it = loader(held())
    labels = torch.cat([it.batch(k).labels for k in range(10)])
    assert labels[:N].tolist() == permutation(N, "order", 3, 0).tolist()
    assert labels[N : 2 * N].tolist() == permutation(N, "order", 3, 1).tolist()


def test_a_batch_does_not_depend_on_what_was_asked_before():
    forward, backward = loader(held()), loader(held())
    expected = [forward.batch(k) for k in range(20)]
    for k in reversed(range(20)):
        assert same(backward.batch(k), expected[k])


def test_ranks_share_one_global_order():
    whole = loader(held(), batch_size=6)
    halves = [loader(held(), batch_size=3, rank=rank, world_size=2) for rank in range(2)]
    for k in range(9):
        parts = [half.batch(k) for half in halves]
        assert torch.equal(torch.cat([part.content for part in parts]), whole.batch(k).content)
    assert halves[0].epoch(N) == whole.epoch(N) == 6.0


def test_a_batch_larger_than_the_data_runs_over_epochs():
    labels = loader(held(), batch_size=3 * N + 1).batch(0).labels
    assert torch.bincount(labels).min() == 3


def test_flips_depend_on_epoch_and_item_alone_and_hit_about_half():
    data = ImageDataset(torch.from_numpy(pixels(400)), torch.arange(400), views=["flip"])
    flipped = {}
    for size in (50, 80):
        it = loader(data, batch_size=size)
        seen = torch.zeros(400, dtype=torch.bool)
        for k in range(400 // size):
            batch = it.batch(k)
            plain = data.codec.encode(torch.from_numpy(pixels(400)))[batch.labels]
            seen[batch.labels] = (batch.content != plain).flatten(1).any(1)
        flipped[size] = seen
    assert torch.equal(flipped[50], flipped[80])
    assert 140 < int(flipped[50].sum()) < 260
    unchanged = loader(ImageDataset(data.resident().content, data.resident().labels), batch_size=400).batch(0)
    assert torch.equal(data.codec.decode(unchanged.content), torch.from_numpy(pixels(400))[unchanged.labels])


@pytest.mark.parametrize("workers", [0, 2])
def test_streaming_gives_what_residence_gives(workers):
    expected, it = loader(held()), loader(streamed(), workers=workers)
    for k in [0, 1, 2, 9, 10, 4, 5]:
        assert same(it.batch(k), expected.batch(k))


@pytest.mark.parametrize("dataset", [held, streamed])
def test_evaluation_batches_are_raw_and_in_order(dataset):
    batches = list(batches_in_order(dataset(), 10, "cpu"))
    assert [len(batch) for batch in batches] == [10, 10, 3]
    assert torch.equal(torch.cat([batch.content for batch in batches]), torch.from_numpy(pixels()))
    assert torch.cat([batch.labels for batch in batches]).tolist() == list(range(N))


def test_a_dead_worker_is_named():
    def die(index: int) -> np.ndarray:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    with pytest.raises(DataError, match=r"worker.*\d+"):
        loader(streamed(die), workers=1).batch(0)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_ours_comes_through_as_it_is(workers):
    def fail(index: int) -> np.ndarray:
        raise DataError("item is broken", "hint it")

    with pytest.raises(DataError) as caught:
        loader(streamed(fail), workers=workers).batch(0)
    assert (caught.value.message, caught.value.hint) == ("item is broken", "hint it")


def test_an_empty_dataset_is_refused():
    with pytest.raises(DataError, match="empty"):
        loader(ImageDataset(torch.zeros(0, 1, 4, 4, dtype=torch.uint8), None))


def test_a_loader_that_is_dropped_takes_its_workers_with_it():
    others = multiprocessing.active_children()  # such as the idle workers of a sweep tested before
    it = loader(streamed(), workers=2)
    it.batch(0)
    workers = [child for child in multiprocessing.active_children() if child not in others]
    assert len(workers) == 2
    gc.disable()  # no cycle keeps the stream alive
    try:
        del it
        assert not any(worker.is_alive() for worker in workers)
    finally:
        gc.enable()


@pytest.mark.parametrize("dataset", [held, streamed])
def test_batches_draw_nothing_from_the_random_state_of_the_step(dataset):
    torch.manual_seed(0)
    expected = torch.rand(3)
    it = loader(dataset())
    torch.manual_seed(0)
    it.batch(4)
    assert torch.equal(torch.rand(3), expected)


class Own(ImageDataset):
    """Hands its items out by a gatherer of its own, in an order of its own."""

    def gatherer(self, device):
        data = self._data

        class Gatherer:
            device = torch.device("cpu")

            def __call__(self, index, uniform=None):
                asked.append(None if uniform is None else uniform.shape)
                return data.take(index)

        asked = self.asked = []
        return Gatherer()


def test_a_dataset_may_gather_its_own_batches():
    data = Own(torch.from_numpy(pixels()), torch.arange(N))
    expected, it = loader(held(flip=False)), loader(data)
    for k in (0, 7, 3):
        assert same(it.batch(k), expected.batch(k))
    assert data.asked == [(5, 8)] * 3
    batches = list(batches_in_order(data, 10, "cpu"))
    assert torch.cat([batch.labels for batch in batches]).tolist() == list(range(N))
    assert data.asked == [None] * 3


def test_a_dataset_may_have_an_order_of_its_own():
    class Backwards:
        def entries(self, k):
            return torch.tensor([N - 1 - k]), None

        def epoch(self, k):
            return k / N

    data = Own(torch.from_numpy(pixels()), torch.arange(N))
    data.order = lambda plan, device: Backwards()
    it = loader(data)
    assert [it.batch(k).labels.tolist() for k in (0, 4)] == [[N - 1], [N - 5]]
    assert it.epoch(N) == 1


def test_a_thread_of_a_worker_says_nothing_when_the_main_process_has_ended(monkeypatch, capsys):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    _in_worker(0)
    sys.excepthook(EOFError, EOFError(), None)
    assert not capsys.readouterr().err
