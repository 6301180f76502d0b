"""What is told of text at a glance is about what it holds, whatever its files are like."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aigc_cli.config.compose import compose
from aigc_cli.config.schema import check
from aigc_cli.data import survey
from aigc_cli.data.text import TextConfig

TEXT = "春眠不觉晓。处处闻啼鸟。"


def surveyed(path: Path, **keys: Any) -> dict[str, Any]:
    values = compose("data", ["data=text", f"data.root={path}"])["data"]
    return survey.text(check("data", TextConfig, {**values, "val_fraction": 0.0, "test_fraction": 0.0, **keys}))


@pytest.mark.parametrize("kind", ["txt", "parquet", "escaped", "gbk"])
def test_script_and_size_are_those_of_the_text(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"poems.{ {'escaped': 'jsonl', 'gbk': 'txt'}.get(kind, kind) }"
    if kind == "parquet":
        pq.write_table(pa.table({"text": [TEXT] * 1000}), path)
    elif kind == "escaped":
        path.write_text("".join(json.dumps({"text": TEXT}) + "\n" for _ in range(1000)))
    else:
        path.write_bytes(f"{TEXT}\n".encode("utf-8" if kind == "txt" else kind) * 1000)
    facts = surveyed(path, encoding="gbk" if kind == "gbk" else "utf-8")
    assert facts["script"] == "han"
    assert 12_000 <= facts["characters"] <= 26_000
