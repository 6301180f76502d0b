import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from aigc_cli.errors import ConfigError, ResourceError
from aigc_cli.modalities.samples import RECORD, Arrangement, Provenance, read_record, recorded_files, write_record
from aigc_cli.sampling.folder import check_replaceable, filling

MakeProvenance = Callable[..., Provenance]
Fill = Callable[..., None]


@pytest.fixture
def fill(provenance: MakeProvenance) -> Fill:
    """Fills a folder with files of some names."""

    def write(out: Path, names: list[str], text: str = "new", made_by: Provenance | None = None) -> None:
        with filling(out) as staging:
            for name in names:
                (staging / name).write_text(text)
            record = (made_by or provenance()).record(Arrangement(n=len(names)), names, [])
            write_record(staging, record)

    return write


def content(out: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in out.iterdir() if path.name != RECORD}


def test_a_new_folder_appears_whole(tmp_path: Path, fill: Fill) -> None:
    out = tmp_path / "deep" / "er" / "out"
    fill(out, ["a", "b"])
    assert content(out) == {"a": "new", "b": "new"}
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    record = read_record(out)
    assert record is not None
    assert record["files"] == ["a", "b"]
    assert record["indices"] == [0, 1]
    assert record["model_checksum"] == "ab" * 32
    assert record["label"] == "AI-generated"


@pytest.mark.parametrize("error", [ValueError("bug"), KeyboardInterrupt()])
def test_whatever_ends_the_block_nothing_is_left(tmp_path: Path, error: BaseException, fill: Fill) -> None:
    def interrupted(out: Path) -> None:
        with filling(out) as staging:
            (staging / "a").write_text("half")
            raise error

    with pytest.raises(type(error)):
        interrupted(tmp_path / "deep" / "out")
    assert list(tmp_path.iterdir()) == []
    out = tmp_path / "there"
    fill(out, ["a"], "old")
    with pytest.raises(type(error)):
        interrupted(out)
    assert content(out) == {"a": "old"}


@pytest.mark.parametrize(
    ("code", "hint"), [(errno.ENOSPC, "free some space"), (errno.EROFS, "read-only"), (errno.EIO, "out=")]
)
def test_a_disk_that_takes_no_more(tmp_path: Path, code: int, hint: str) -> None:
    def interrupted() -> None:
        with filling(tmp_path / "out") as staging:
            (staging / "a").write_text("half")
            raise OSError(code, os.strerror(code))

    with pytest.raises(ResourceError) as caught:
        interrupted()
    assert os.strerror(code) in caught.value.message
    assert str(tmp_path / "out") in caught.value.message
    assert hint in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_out_that_is_a_file(tmp_path: Path, fill: Fill, provenance: MakeProvenance) -> None:
    (tmp_path / "out").write_text("mine")
    for out in (tmp_path / "out", tmp_path / "out" / "below"):
        with pytest.raises(ConfigError, match="out="):
            fill(out, ["a"])
        with pytest.raises(ConfigError, match="out="):
            check_replaceable(out, provenance(), 1, overwrite=True)
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_out_that_may_not_be_written(tmp_path: Path, fill: Fill) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ResourceError):
        fill(tmp_path / "out", ["a"])
    tmp_path.chmod(0o700)


def test_an_existing_folder_keeps_what_is_not_ours(tmp_path: Path, fill: Fill, provenance: MakeProvenance) -> None:
    out = tmp_path / "out"
    fill(out, ["a", "b", "c"], "old")
    (out / "notes.txt").write_text("mine")
    fill(out, ["a", "b"], "new", provenance(model_checksum="cd" * 32))
    assert content(out) == {"a": "new", "b": "new", "notes.txt": "mine"}
    record = read_record(out)
    assert record is not None
    assert record["model_checksum"] == "cd" * 32


def test_a_record_from_a_stranger_deletes_nothing_elsewhere(tmp_path: Path, fill: Fill) -> None:
    (tmp_path / "precious").write_text("mine")
    out = tmp_path / "out"
    out.mkdir()
    write_record(out, {"label": "AI-generated", "files": ["../precious", str(tmp_path / "precious"), "..", 7]})
    assert recorded_files(read_record(out) or {}) == set()
    fill(out, ["a"])
    assert (tmp_path / "precious").read_text() == "mine"
    (out / RECORD).write_text('["AI-generated"]')
    assert read_record(out) is None


def test_what_may_be_replaced(tmp_path: Path, fill: Fill, provenance: MakeProvenance) -> None:
    out = tmp_path / "out"
    check_replaceable(out, provenance(), 2, overwrite=False)
    out.mkdir()
    (out / ".partial-x").mkdir()
    check_replaceable(out, provenance(), 2, overwrite=False)
    fill(out, ["a", "b"])
    check_replaceable(out, provenance(), 2, overwrite=False)
    check_replaceable(out, provenance(versions={"torch": "another"}, run="moved"), 3, overwrite=False)


@pytest.mark.parametrize(
    ("changes", "n", "message"),
    [
        ({"seed": 4}, 2, "samples of another seed"),
        ({"step": 8, "model_checksum": "cd"}, 2, "another step and model_checksum"),
        ({"controls": {"truncation": 1.0}}, 2, "another controls"),
        ({"format": "npz"}, 2, "another format"),
        ({}, 1, "holds 2 samples, of which these 1 are the first"),
    ],
)
def test_what_may_not(
    tmp_path: Path, changes: dict[str, object], n: int, message: str, fill: Fill, provenance: MakeProvenance
) -> None:
    out = tmp_path / "out"
    fill(out, ["a", "b"])
    with pytest.raises(ConfigError, match=message) as caught:
        check_replaceable(out, provenance(**changes), n, overwrite=False)
    assert "overwrite=true" in caught.value.hint
    check_replaceable(out, provenance(**changes), n, overwrite=True)


def test_what_a_person_put_there_may_not(tmp_path: Path, fill: Fill, provenance: MakeProvenance) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "photo.jpg").write_text("mine")
    with pytest.raises(ConfigError, match="it holds photo"):
        check_replaceable(out, provenance(), 2, overwrite=False)
    (out / "photo.jpg").unlink()
    fill(out, ["a", "b"])
    (out / "photo.jpg").write_text("mine")
    with pytest.raises(ConfigError, match="it holds photo"):
        check_replaceable(out, provenance(), 2, overwrite=False)
