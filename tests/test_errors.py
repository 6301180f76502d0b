"""Errors of libraries, in the user's terms."""

import errno
import os

import pytest
import torch
from torch import nn

from aigc_cli.errors import ConfigError, ResourceError, as_user_error, suggest


def test_a_batch_norm_of_one_item_is_the_users_batch_size() -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        nn.BatchNorm1d(3)(torch.zeros(1, 3))
    known = as_user_error(raised.value)
    assert isinstance(known, ConfigError)
    assert "trainer.batch_size=" in known.hint


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("can't start new thread"), "limit on processes (ulimit -u)"),
        (ImportError("libtorch.so: failed to map segment from shared object"), "ulimit -v"),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "limit on open files (ulimit -n)"),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "a.safetensors"), "you have no permission there"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a"), "free some space on that disk"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_limit_is_named_with_what_raises_it(error: Exception, told: str) -> None:
    known = as_user_error(error)
    assert isinstance(known, ResourceError)
    assert told in known.hint
    assert ("free some space" in known.hint) == (getattr(error, "errno", 0) == errno.ENOSPC)


def test_a_name_that_is_too_long_is_the_users_word() -> None:
    assert isinstance(as_user_error(OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), "x")), ConfigError)


def test_a_part_of_a_name_brings_the_names_that_have_it() -> None:
    assert suggest("ball", ["blue-box", "green-ball"]) == "did you mean green-ball?"
