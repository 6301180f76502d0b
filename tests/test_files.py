import errno
import hashlib
from pathlib import Path

import pytest

from aigc_cli.errors import ConfigError, ResourceError
from aigc_cli.files import check_writable, checksum, path_of, replacing, resource_errors, write_atomically


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


def test_a_place_that_takes_no_files_is_found_out_beforehand(tmp_path):
    check_writable(tmp_path / "not" / "there", "with out=")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    for folder, named in ((tmp_path / "file" / "in it", "file is not a folder"), (tmp_path / ("a" * 300), "too long")):
        with pytest.raises(ResourceError, match=named) as caught:
            check_writable(folder, "with out=")
        assert caught.value.hint == "choose another folder with out="


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc, which takes no files from anyone")
def test_a_place_that_permissions_allow_and_the_system_does_not():
    for folder in (Path("/proc"), Path("/proc/a/b")):
        with pytest.raises(ResourceError, match=f"cannot write to {folder}: "):
            check_writable(folder)


def test_a_word_is_a_path(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert path_of("~/a") == Path("/home/someone/a")
    assert path_of("~nobody~here/a") == Path("~nobody~here/a")
    with pytest.raises(ConfigError, match="null byte"):
        path_of("a\0b")
    with pytest.raises(ConfigError, match="is not a path: File name too long"):
        path_of("a" * 300)
