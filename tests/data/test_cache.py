import hashlib
import io
import os
import pickle
import random
import subprocess
import sys
import tarfile
import time

import pytest

from aigc_cli.data.cache import cache_dir, download, find_root, unpack
from aigc_cli.data.own_folder import safe_name
from aigc_cli.errors import ConfigError, DataError, ResourceError


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


@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_root_is_not_the_current_folder(empty):
    with pytest.raises(ConfigError, match=r"data\.root= has no value"):
        find_root(empty)


BODY = b"\x00content" * 1000
SHA256 = hashlib.sha256(BODY).hexdigest()
SUMS = {"sha256": SHA256}
MD5 = hashlib.md5(BODY).hexdigest()


def test_a_good_file_arrives_and_is_not_fetched_again(server, tmp_path):
    url = server.serve("/file", BODY)
    path = tmp_path / "new" / "file"
    for _ in range(2):
        assert download([url], path, {"sha256": SHA256, "md5": MD5}) == path
    assert path.read_bytes() == BODY
    assert server.asked == ["/file"]


def test_a_file_with_the_wrong_sum_is_replaced(server, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    download([server.serve("/file", BODY)], path, {"md5": MD5})
    assert path.read_bytes() == BODY


def test_the_next_mirror_is_tried(server, tmp_path):
    urls = [f"{server.url}/gone", server.serve("/page", b"<html>", kind="text/html"), server.serve("/file", BODY)]
    download(urls, tmp_path / "file", SUMS)
    assert server.asked == ["/gone", "/page", "/file"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"body": BODY, "kind": "text/html; charset=utf-8"}, "HTML page"),
        ({"body": b"\n <!DOCTYPE html><html>Log in" + BODY}, "HTML page"),
        ({"body": BODY, "length": len(BODY) + 5}, f"truncated: {len(BODY)} of {len(BODY) + 5}"),
        ({"body": BODY + b"!"}, f"its sha256 is .* not {SHA256}"),
        ({"body": b""}, "its sha256 is"),
        ({"body": BODY, "length": 10**12}, "more than"),
    ],
)
def test_what_is_not_the_file_is_refused_and_leaves_nothing(server, tmp_path, answer, reason):
    folder = tmp_path / "downloads"
    url = server.serve("/file", **answer)
    with pytest.raises(DataError, match=reason) as caught:
        download([url], folder / "file", SUMS)
    assert list(folder.iterdir()) == []
    for word in (url, SHA256, str(folder / "file")):
        assert word in caught.value.hint


def test_an_older_file_survives_a_failed_download(server, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(DataError):
        download([f"{server.url}/gone"], path, SUMS)
    assert path.read_bytes() == b"old"


def test_an_answer_that_stops_runs_into_the_timeout(server, tmp_path):
    def stall(request):
        request.send_response(200)
        request.send_header("Content-Length", str(len(BODY)))
        request.end_headers()
        request.wfile.write(BODY[:100])
        request.wfile.flush()
        time.sleep(0.6)

    server.answers["/slow"] = stall
    with pytest.raises(DataError, match=r"broke|truncated"):
        download([f"{server.url}/slow"], tmp_path / "file", {}, timeout=0.2)
    assert not (tmp_path / "file").exists()


def test_no_network(tmp_path):
    with pytest.raises(DataError, match="no connection"):
        download(["http://127.0.0.1:9/file"], tmp_path / "file", {}, timeout=2)


def test_only_http(tmp_path):
    with pytest.raises(DataError, match="not an http address"):
        download([f"file://{__file__}"], tmp_path / "file", {})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(server, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ResourceError, match="cannot write"):
        download([server.serve("/file", BODY)], tmp_path / "file", {})


def test_a_target_that_is_no_folder(server, tmp_path):
    (tmp_path / "blocked").write_text("a file")
    with pytest.raises(ResourceError, match="cannot write"):
        download([server.serve("/file", BODY)], tmp_path / "blocked" / "file", {})


def tar(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = content
                archive.addfile(info)
    return path


def test_plain_files_are_unpacked(tmp_path):
    archive = tar(tmp_path / "archive", [("a/b.txt", b"one"), ("c.txt", b"two")])
    folder = unpack(archive, tmp_path / "deep" / "out", max_bytes=100)
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == {"a/b.txt": b"one", "c.txt": b"two"}
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


@pytest.mark.parametrize("what", ["download", "unpack"])
def test_what_a_kill_left_goes_with_the_next_one(what, server, tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir()
    work = {
        "download": (download, ([server.serve("/file", BODY)], folder / "file", SUMS), {}),
        "unpack": (unpack, (tar(tmp_path / "archive", [("a", b"one")]), folder / "file"), {"max_bytes": 100}),
    }[what]
    killed = (
        "import os, pathlib, pickle, sys\n"
        "pathlib.Path.replace = pathlib.Path.rename = lambda *_: os._exit(9)\n"
        "function, arguments, options = pickle.load(sys.stdin.buffer)\n"
        "function(*arguments, **options)"
    )
    assert subprocess.run([sys.executable, "-c", killed], input=pickle.dumps(work), check=False).returncode == 9
    assert [path.suffix for path in folder.iterdir()] == [".part"]
    work[0](*work[1], **work[2])
    assert [path.name for path in folder.iterdir()] == ["file"]


WICKED = {
    "up": [("a/../../x", b"x")],
    "link": [("x", (tarfile.SYMTYPE, "/etc/passwd"))],
    "link up": [("x", (tarfile.SYMTYPE, "../..")), ("x/y", b"y")],
    "hard link": [("x", (tarfile.LNKTYPE, "/etc/passwd"))],
    "device": [("x", (tarfile.CHRTYPE, ""))],
    "pipe": [("x", (tarfile.FIFOTYPE, ""))],
    "bomb": [("ok", b"fine"), ("x", bytes(2_000_000))],
}


@pytest.mark.parametrize("kind", WICKED)
def test_wicked_archives_are_refused_whole(kind, tmp_path):
    archive = tar(tmp_path / "archive", WICKED[kind])
    with pytest.raises(DataError, match="not safe to unpack") as caught:
        unpack(archive, tmp_path / "out", max_bytes=1_000_000)
    assert str(archive) in caught.value.message
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


def test_an_absolute_path_stays_within(tmp_path):
    archive = tar(tmp_path / "archive", [(str(tmp_path / "x"), b"x")])
    folder = unpack(archive, tmp_path / "out", max_bytes=10)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "out"]
    assert (folder / str(tmp_path / "x").lstrip("/")).read_bytes() == b"x"


@pytest.mark.parametrize("keep", [20, 100, -100])
def test_truncated_archives(keep, tmp_path):
    archive = tar(tmp_path / "archive", [(f"{i}", random.Random(i).randbytes(500)) for i in range(5)])
    archive.write_bytes(archive.read_bytes()[:keep])
    with pytest.raises(DataError, match="broken"):
        unpack(archive, tmp_path / "out", max_bytes=10**6)
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


def test_no_archive_at_all(tmp_path):
    (tmp_path / "archive").write_text("hello")
    with pytest.raises(DataError, match="broken"):
        unpack(tmp_path / "archive", tmp_path / "out", max_bytes=10)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="cannot unpack"):
        unpack(tar(tmp_path / "archive", []), tmp_path / "file" / "out", max_bytes=10)


@pytest.mark.parametrize("name", ["/etc/x", "a/../../x", "..\\x", "C:/x", "a\0b"])
def test_names_that_lead_out_of_a_zip_are_not_safe(name):
    assert safe_name(name) is None
    assert safe_name("./a//b") == "a/b"
