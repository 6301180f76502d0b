import io
import random
import tarfile

import pytest

from aigc_cli.data.download import unpack
from aigc_cli.data.image_folder import safe_name
from aigc_cli.errors import DataError, ResourceError


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
