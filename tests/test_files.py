import errno
import hashlib
from pathlib import Path

import pytest

from aigc_cli.errors import ConfigError, ResourceError
from aigc_cli.files import checksum, path_of, replacing, resource_errors, write_atomically


def test_a_replacement_that_fails_leaves_the_old(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(part: Path) -> None:
        part.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), replacing(path) as part:
        fail(part)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


def test_writing_leaves_nothing_beside(tmp_path):
    write_atomically(tmp_path / "file", "new")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_checksums(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    assert checksum(tmp_path / "file") == hashlib.sha256(b"content").hexdigest()
    assert checksum(tmp_path / "file", "md5") == hashlib.md5(b"content").hexdigest()


def test_a_full_disk_says_where_else_to_go():
    with pytest.raises(ResourceError, match="with AIGC_CACHE"), resource_errors(Path("x"), "with AIGC_CACHE"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_word_is_a_path(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert path_of("~/a") == Path("/home/someone/a")
    assert path_of("~nobody~here/a") == Path("~nobody~here/a")
    with pytest.raises(ConfigError, match="null byte"):
        path_of("a\0b")
