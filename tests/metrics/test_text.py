"""Lines of text in metrics, which processes hand to each other."""

import torch
from toy_metrics import text_metric


def test_lines_go_through_their_bytes_unchanged() -> None:
    built = text_metric("distinct")
    lines = ["", "é\u2028日", "🙂 a", ""]
    built.update("fake", lines[:1])
    built.update("fake", lines[1:])
    assert built._lines("fake") == lines
    assert built._lines("real") == []
    assert isinstance(built.fake_bytes, list | torch.Tensor)
