import numpy as np
import pytest
import torch

from aigc_cli.data.base import AHEAD, BatchPlan, BucketOrder, WindowOrder
from aigc_cli.randomness import scattered, uniform_at


@pytest.mark.parametrize("n", [1, 2, 3, 5, 64, 65, 1000])
def test_scattered_is_a_permutation_by_its_key(n):
    found = scattered(np.arange(n), n, "a", 0)
    assert sorted(found.tolist()) == list(range(n))
    assert scattered(np.arange(n)[::-1], n, "a", 0).tolist() == found[::-1].tolist()
    if n > 10:
        assert scattered(np.arange(n), n, "a", 1).tolist() != found.tolist()


def test_scattered_takes_each_item_everywhere():
    n, keys = 7, 3000
    counts = np.zeros((n, n))
    for key in range(keys):
        counts[np.arange(n), scattered(np.arange(n), n, "b", key)] += 1
    expected = keys / n
    assert ((counts - expected) ** 2 / expected).sum() < 90  # of 36 degrees of freedom; 90 has a chance of 2e-6


def test_scattered_leaves_nothing_of_the_order():
    found = scattered(np.arange(100_000), 100_000, "c")
    assert abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 0.02
    assert abs(np.corrcoef(np.arange(100_000), found)[0, 1]) < 0.02


def test_draws_are_uniform_and_each_item_s_own():
    draws = uniform_at(np.arange(100_000), "d", 0)
    assert draws.dtype == np.float32
    assert draws.min() >= 0
    assert draws.max() < 1
    counts = np.histogram(draws, 10, (0, 1))[0]
    assert abs(counts - 10_000).max() < 500
    assert uniform_at(np.array([77, 5]), "d", 0).tolist() == draws[[77, 5]].tolist()
    assert abs(np.corrcoef(draws, uniform_at(np.arange(100_000), "d", 1))[0, 1]) < 0.02


def test_windows_come_once_an_epoch_and_the_order_needs_no_past():
    order = WindowOrder(103, BatchPlan(10, 3), "cpu")
    entries = [order.entries(k) for k in range(3 * AHEAD // 10)]
    items = torch.cat([index for index, _ in entries])
    for epoch in range(5):
        assert sorted(items[103 * epoch : 103 * (epoch + 1)].tolist()) == list(range(103))
    assert items[:103].tolist() != items[103:206].tolist()
    fresh = WindowOrder(103, BatchPlan(10, 3), "cpu")
    for k in (1000, 3, 409, 410, 0):
        assert torch.equal(fresh.entries(k)[0], entries[k][0])
        assert torch.equal(fresh.entries(k)[1], entries[k][1])
    assert order.epoch(103) == 10.0


def test_a_window_s_draw_is_its_own():
    draws = {}
    for size in (4, 9):
        order = WindowOrder(50, BatchPlan(size, 0), "cpu")
        pairs = [
            torch.stack([index.double(), uniform[:, 0].double()]) for index, uniform in map(order.entries, range(4))
        ]
        draws[size] = dict(torch.cat(pairs, dim=1)[:, :16].T.tolist())
    assert draws[4] == {item: draws[9][item] for item in draws[4]}


def test_ranks_share_the_windows_of_one_batch():
    whole = WindowOrder(50, BatchPlan(6, 1), "cpu")
    halves = [WindowOrder(50, BatchPlan(3, 1, rank, 2), "cpu") for rank in range(2)]
    for k in range(20):
        assert torch.equal(torch.cat([half.entries(k)[0] for half in halves]), whole.entries(k)[0])
    assert halves[0].epoch(7) == whole.epoch(7)


LENGTHS = np.random.default_rng(0).integers(3, 60, 997)


@pytest.mark.parametrize("batch_tokens", [None, 256])
def test_buckets_hold_every_item_once_an_epoch(batch_tokens):
    order = BucketOrder(LENGTHS, BatchPlan(16, 5), batch_tokens=batch_tokens, buckets=16)
    for epoch in range(3):
        items = torch.cat([order.entries(k + epoch * order.batches)[0] for k in range(order.batches)])
        assert sorted(items.tolist()) == list(range(len(LENGTHS)))
        assert order.epoch(epoch * order.batches) == epoch
    assert 0 < order.epoch(order.batches // 2) < 1
    first, second = (order.entries(k)[0].tolist() for k in (0, order.batches))
    assert first != second


def test_a_batch_of_a_bucket_keeps_to_its_budget_and_is_of_like_length():
    order = BucketOrder(LENGTHS, BatchPlan(16, 5), batch_tokens=256, buckets=16)
    sizes, full, real = [], 0, 0
    for k in range(order.batches):
        lengths = LENGTHS[order.entries(k)[0].numpy()]
        sizes.append(len(lengths))
        full += len(lengths) * lengths.max()
        real += lengths.sum()
        assert len(lengths) * lengths.max() <= 256
    assert min(sorted(sizes)[1:]) * 60 > 0.8 * 256, "but for the last, batches are full"
    assert 1 - real / full < 0.1
    at_random = LENGTHS[: 997 // 16 * 16].reshape(-1, 16)
    assert 1 - at_random.sum() / (16 * at_random.max(1).sum()) > 0.4, "which is what it saves"


def test_one_bucket_mixes_all_lengths():
    order = BucketOrder(LENGTHS, BatchPlan(64, 5, mixed=True), batch_tokens=None, buckets=1)
    means = [LENGTHS[order.entries(k)[0].numpy()].mean() for k in range(10)]
    assert max(abs(mean - LENGTHS.mean()) for mean in means) < 8


def test_an_order_of_buckets_needs_no_past():
    order, other = (BucketOrder(LENGTHS, BatchPlan(16, 5), batch_tokens=256, buckets=16) for _ in range(2))
    expected = [order.entries(k)[0].tolist() for k in range(3 * order.batches)]
    for k in reversed(range(0, 3 * order.batches, 7)):
        assert other.entries(k)[0].tolist() == expected[k]
    assert BucketOrder(LENGTHS, BatchPlan(16, 6), batch_tokens=256, buckets=16).entries(0)[0].tolist() != expected[0]


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_each_batch_of_a_bucket(world):
    orders = [BucketOrder(LENGTHS, BatchPlan(4, 5, rank, world), batch_tokens=60, buckets=16) for rank in range(world)]
    seen = []
    for k in range(orders[0].batches):
        parts = [order.entries(k)[0] for order in orders]
        assert min(map(len, parts)) >= 1
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        for part in parts:
            assert len(part) * LENGTHS[part.numpy()].max() <= 60 or len(part) == 1
        seen += torch.cat(parts).tolist()
    assert set(seen) == set(range(len(LENGTHS)))
    assert len(seen) < len(LENGTHS) + world


def test_one_item_is_a_batch():
    order = BucketOrder(np.array([9]), BatchPlan(4, 0, 1, 2), batch_tokens=4, buckets=16)
    assert [order.entries(k)[0].tolist() for k in range(3)] == [[0]] * 3
    assert order.epoch(2) == 2
