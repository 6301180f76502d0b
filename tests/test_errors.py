"""Errors of libraries, in the user's terms."""

import pytest
import torch
from torch import nn

from aigc_cli.errors import ConfigError, as_user_error


def test_a_batch_norm_of_one_item_is_the_users_batch_size() -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        nn.BatchNorm1d(3)(torch.zeros(1, 3))
    known = as_user_error(raised.value)
    assert isinstance(known, ConfigError)
    assert "trainer.batch_size=" in known.hint
