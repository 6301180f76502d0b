import base64
import json
import shutil
from pathlib import Path

import pytest

from aigc_cli.cli import main
from aigc_cli.runs import Run

pytest.importorskip("c2pa")
pytest.importorskip("cryptography")


def verified(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, dict[str, object]]:
    capsys.readouterr()
    assert main(["verify", *words, "--json"]) == code
    return {Path(row["file"]).name: row for row in json.loads(capsys.readouterr().out)}


def test_a_signed_picture_is_known_and_a_changed_byte_is_named(
    tiny_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sign", "init", "out=id", "name=A. Person"]) == 0
    assert Path("id/key.pem").stat().st_mode & 0o777 == 0o600
    key = Path("id/key.pem").read_bytes()
    assert main(["sign", "init", "out=id"]) == 2
    assert Path("id/key.pem").read_bytes() == key
    for format in ("png", "jpeg", "webp"):
        assert main(["sample", "n=2", f"format={format}", "sign=id", f"out={format}"]) == 0
        for row in verified(capsys, format).values():
            assert row["verdict"] == "proven"
            assert "GB 45438" in row["labels"]  # type: ignore[operator]
            assert row["signature"]["by"] == "A. Person"  # type: ignore[index]
            assert row["signature"]["valid"]  # type: ignore[index]
            assert not row["signature"]["trusted"]  # type: ignore[index]
    (away := tmp_path / "away").mkdir()
    shutil.copy("png/000001.png", away)
    (row,) = verified(capsys, "away/000001.png", "outputs=nowhere", "trust=id").values()
    assert row["verdict"] == "signed"
    assert row["signature"]["trusted"]  # type: ignore[index]
    content = bytearray((away / "000001.png").read_bytes())
    content[content.index(b"IDAT") + 12] ^= 1  # a pixel
    (away / "000001.png").write_bytes(content)
    (row,) = verified(capsys, "away/000001.png", "outputs=nowhere", code=3).values()
    assert row["verdict"] == "altered"
    assert row["signature"]["problems"] == ["assertion.dataHash.mismatch"]  # type: ignore[index]
    assert main(["verify", "away/000001.png"]) == 3
    assert "signed:   by A. Person, and changed since: assertion.dataHash.mismatch" in capsys.readouterr().out


def test_a_name_may_be_as_long_as_its_certificates_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sign", "init", "out=a", f"name={'é' * 29}"]) == 0
    assert main(["sign", "init", "out=b", f"name={'é' * 29}a"]) == 2
    assert "name= has 1 to 58 bytes" in capsys.readouterr().err


def test_what_is_trusted_is_a_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sign", "init", "out=id"]) == 0
    Path("a.txt").write_text("a text")
    Path("broken.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    Path("binary.pem").write_bytes(bytes(range(256)))
    for name in ("a.txt", "broken.pem", "binary.pem", "id/key.pem"):
        capsys.readouterr()
        assert main(["verify", "a.txt", f"trust={name}"]) == 2
        assert f"trust={name}: {Path(name).name} holds no certificate" in capsys.readouterr().err
    assert main(["verify", "a.txt", "trust=nothing"]) == 2
    for name in ("id", "id/root.pem"):
        assert main(["verify", "a.txt", f"trust={name}"]) == 0


def test_what_cannot_be_signed_is_refused_before_it_is_drawn(tiny_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sign", "init", "out=id"]) == 0
    assert main(["sample", "sign=id", "format=npz"]) == 2
    assert "format=npz has no place for a signature" in capsys.readouterr().err
    Path("id/key.pem").chmod(0o644)
    assert main(["sample", "sign=id"]) == 2
    assert "others may read its key.pem" in capsys.readouterr().err
    assert main(["sample", "sign=nothing"]) == 2
    assert main(["sign"]) == 2


def test_a_server_signs_what_it_sends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    httpx = pytest.importorskip("httpx")
    from serve_runs import fresh_runs, serving

    from aigc_cli.modalities.credentials import Signature, Signer, make_identity, read_signature

    monkeypatch.chdir(tmp_path)
    make_identity(Path("id"), "A. Person")
    with serving(fresh_runs(["digits/vae"])) as (url, house):
        house.signer = Signer(Path("id"))
        sent = httpx.post(f"{url}/generate", json={"n": 1, "response": "file"})
        Path("sent.png").write_bytes(sent.content)
        assert httpx.post(f"{url}/generate", json={"n": 1, "format": "npz"}).status_code == 400
        pair = httpx.post(f"{url}/generate", json={"n": 1, "mode": "reconstruct"}).json()["samples"]
        assert [b"c2pa" in base64.b64decode(one["data"]) for one in pair] == [False, True], "the original is not ours"
    signature = read_signature(Path("sent.png"))
    assert isinstance(signature, Signature)
    assert signature.valid
