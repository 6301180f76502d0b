"""Samples that are held against data in which some classes are rarer than others."""

import numpy as np
import torch

from aigc_cli.data.images import ImageDataset
from aigc_cli.metrics.class_order import class_order


def split(*counts: int) -> ImageDataset:
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return ImageDataset(torch.zeros(len(labels), 1, 4, 4, dtype=torch.uint8), labels, tuple("abcd"[: len(counts)]))


def test_even_classes_take_turns() -> None:
    assert class_order(split(100, 100, 100), 9) == ()
    assert class_order(split(100, 95, 103), 9) == ()


def test_each_class_is_as_frequent_as_in_the_data_from_the_first_few_samples_on() -> None:
    order = class_order(split(600, 300, 100), 100)
    assert np.bincount(order).tolist() == [60, 30, 10]
    assert np.bincount(order[:10]).tolist() == [6, 3, 1]
    assert order[:10] == class_order(split(600, 300, 100), 10)


def test_a_class_that_no_training_item_has_is_not_drawn() -> None:
    assert class_order(split(50, 0, 50), 8) == (), "the others take turns, of which the model knows"
    assert set(class_order(split(80, 0, 20), 50)) == {0, 2}
