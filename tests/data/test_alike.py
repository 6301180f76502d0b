import numpy as np

from aigc_cli.data.alike import SIDE, alike_pictures


def test_of_no_pictures_none_are_alike() -> None:
    """As where every picture of a folder is of one colour."""
    assert alike_pictures(np.zeros((0, SIDE, SIDE), np.float32)).tolist() == []
