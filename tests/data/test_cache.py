import os

import pytest

from aigc_cli.data.cache import cache_dir, find_root
from aigc_cli.errors import DataError, ResourceError


def test_the_order_of_places(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AIGC_CACHE", str(tmp_path / "own"))
    assert cache_dir() == tmp_path / "own"
    monkeypatch.delenv("AIGC_CACHE")
    assert cache_dir() == tmp_path / "xdg" / "aigc"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == tmp_path / "home" / ".cache" / "aigc"
    assert cache_dir().is_dir()


def test_a_home_that_cannot_be_written_to(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.delenv("AIGC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "temporary"))
    assert cache_dir() == tmp_path / "temporary" / f"aigc-{os.getuid()}"
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "file"))
    with pytest.raises(ResourceError, match="no folder"):
        cache_dir()


def test_a_chosen_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("AIGC_CACHE", str(tmp_path / "file"))
    with pytest.raises(ResourceError, match="cannot be written to"):
        cache_dir()


def test_roots(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    assert find_root("~/data") == find_root("data") == tmp_path / "data"
    with pytest.raises(DataError, match=r"there is nothing at .*nowhere"):
        find_root("nowhere")
