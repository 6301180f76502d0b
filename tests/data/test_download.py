import hashlib
import os
import time

import pytest

from aigc_cli.data.download import download
from aigc_cli.errors import DataError, ResourceError

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
