"""Datasets, how they are opened and split, and the loader that makes batches of them."""

from aigc_cli.data.base import SPLITS, Dataset, Split
from aigc_cli.data.open import absolute_paths, open_dataset
from aigc_cli.modalities.base import Batch, Codec, DataSpec

__all__ = ["SPLITS", "Batch", "Codec", "DataSpec", "Dataset", "Split", "absolute_paths", "open_dataset"]
