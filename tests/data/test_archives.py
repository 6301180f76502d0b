import io
import tarfile
import zipfile

import pytest

from aigc_cli.data.archives import unpack
from aigc_cli.errors import DataError


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


def zipped(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            if not isinstance(content, bytes):
                info.external_attr = 0o120777 << 16
                content = content[1].encode()
            archive.writestr(info, content)
    return path


@pytest.mark.parametrize("pack", [tar, zipped])
def test_plain_files_are_unpacked(pack, tmp_path):
    archive = pack(tmp_path / "archive", [("a/b.txt", b"one"), ("c.txt", b"two")])
    folder = unpack(archive, tmp_path / "deep" / "out")
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == {"a/b.txt": b"one", "c.txt": b"two"}
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


WICKED = {
    "absolute": [("/etc/x", b"x")],
    "up": [("a/../../x", b"x")],
    "backslash": [("..\\x", b"x")],
    "drive": [("C:/x", b"x")],
    "link": [("x", (tarfile.SYMTYPE, "/etc/passwd"))],
    "twice": [("x", b"1"), ("./x", b"2")],
    "case": [("x", b"1"), ("X", b"2")],
    "file and folder": [("x", b"1"), ("x/y", b"2")],
    "bomb": [("ok", b"fine"), ("x", bytes(2_000_000))],
}


@pytest.mark.parametrize("pack", [tar, zipped])
@pytest.mark.parametrize("kind", WICKED)
def test_wicked_archives_are_refused_whole(pack, kind, tmp_path):
    archive = pack(tmp_path / "archive", WICKED[kind])
    with pytest.raises(DataError, match="refused") as caught:
        unpack(archive, tmp_path / "out", max_bytes=1_000_000)
    assert str(archive) in caught.value.message
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_hard_links_and_devices(kind, tmp_path):
    archive = tar(tmp_path / "archive", [("x", (kind, "y"))])
    with pytest.raises(DataError, match="link or a device"):
        unpack(archive, tmp_path / "out")


def test_the_ratio_bounds_what_comes_out(tmp_path):
    archive = zipped(tmp_path / "archive", [("x", bytes(3_000_000))])
    with pytest.raises(DataError, match="unpacks to more than"):
        unpack(archive, tmp_path / "out", max_ratio=20)


@pytest.mark.parametrize("pack", [tar, zipped])
def test_truncated_archives(pack, tmp_path):
    archive = pack(tmp_path / "archive", [(f"{i}", bytes(range(256)) * 50) for i in range(5)])
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(DataError, match="broken"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_archive_at_all(tmp_path):
    (tmp_path / "archive").write_text("hello")
    with pytest.raises(DataError, match="broken"):
        unpack(tmp_path / "archive", tmp_path / "out")
