import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aigc_cli.errors import ConfigError, ResourceError
from aigc_cli.files import (
    check_writable,
    checksum,
    new_folder,
    path_of,
    replacing,
    resource_errors,
    temporary_folder,
    write_atomically,
)
from aigc_cli.locks import writing_alone


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


@pytest.mark.parametrize("write", [replacing, new_folder, temporary_folder])
def test_what_killed_writes_left_goes_with_the_next_one_there(tmp_path, write):
    """Of this machine what no process is at; of others, whose processes nobody here knows, what is long forgotten."""
    with write(tmp_path / "a") as part:
        part.mkdir(exist_ok=True)
        living = part.name
        mine, pid = living.split("-")[1:3]
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        dead = tmp_path / living.replace(f"-{pid}-", f"-{ended.pid}-")
        file = dead.with_name(dead.name.replace(".part", "1.part"))
        elsewhere, forgotten = (tmp_path / dead.name.replace(mine, sum) for sum in ("0" * 8, "1" * 8))
        for folder in (dead, elsewhere, forgotten):
            folder.mkdir()
            (folder / "half").touch()
        file.touch()
        os.utime(forgotten, (0, 0))
        write_atomically(tmp_path / "b", "other")
        assert {path.name for path in tmp_path.iterdir()} == {living, elsewhere.name, "b"}
        if write is replacing:
            part.rmdir()
            part.touch()


def test_names_may_be_as_long_as_the_system_has_them(tmp_path):
    longest = "x" * 255
    write_atomically(tmp_path / longest, "content")
    with new_folder(tmp_path / ("y" * 255)), writing_alone(tmp_path / ("y" * 255), "with out="):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {longest, "y" * 255}
    path = tmp_path / ("x" * 256)
    with pytest.raises(ConfigError, match="File name too long"), resource_errors(path, "with out="):
        write_atomically(path, "content")


def test_a_place_is_written_by_one_at_a_time(tmp_path):
    place = tmp_path / "deep" / "out"
    with writing_alone(place, "with out="):
        with (
            pytest.raises(ConfigError, match=rf"is writing .*/out \(process {os.getpid()} on ") as caught,
            writing_alone(place, "with out="),
        ):
            pass
        assert caught.value.hint == "wait for it, or choose another place with out="
    with writing_alone(place, "with out="):
        place.mkdir()
    assert [path.name for path in place.parent.iterdir()] == ["out"]


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
        with pytest.raises((ResourceError, ConfigError), match=named) as caught:
            check_writable(folder, "with out=")
        assert caught.value.hint.endswith("choose another folder with out=")


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
