"""Content credentials (C2PA): a signature within a file that names any change to it, and who says what made it.

Who signs with a certificate of their own making proves that all such files come from the holder of one key, and that
none was changed; not who that is. For that a certificate authority of C2PA's trust list has to sign the key.
"""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from aigc_cli import __version__
from aigc_cli.errors import ConfigError, DataError, ResourceError
from aigc_cli.files import hint_for, replacing
from aigc_cli.modalities.samples import Arrangement, Provenance, kind_of

EXTRA = "'aigc-cli[sign]'"
#: The endings of what can be signed of what is written here. The rest has no place for a signature.
SIGNED = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".wav", ".flac", ".mp4")
CHAIN, KEY, ROOT = "chain.pem", "key.pem", "root.pem"
_ROOT_KEY = "root-key.pem"
_YEARS = 10
_OURS = "org.aigc.provenance"  # the assertion that holds what made the content
_INIT = "make one with `aigc sign init`"


def _needs(package: str, what: str) -> None:
    if find_spec(package) is None:
        raise ConfigError(f"{what} needs {package}, which is not installed", f"pip install {EXTRA}")


def check_signable(format: str) -> None:
    """Refuses to sign samples of a format that has no place for it."""
    if f".{format}" not in SIGNED:
        known = ", ".join(suffix[1:] for suffix in SIGNED if suffix != ".jpg")
        raise ConfigError(f"sign=: format={format} has no place for a signature", f"leave sign= out; it signs {known}")


def make_identity(folder: Path, name: str) -> None:
    """A root certificate and one signed by it, with their keys, in a new folder that its owner alone may read.

    Raises:
        ConfigError: there is such a folder already, or ``cryptography`` is not installed.
        ResourceError: it cannot be written.
    """
    _needs("cryptography", "aigc sign")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def certificate(who: str, key: Any, issuer: x509.Name | None, issuer_key: Any, authority: bool) -> Any:
        own = x509.Name(
            [x509.NameAttribute(NameOID.COMMON_NAME, who), x509.NameAttribute(NameOID.ORGANIZATION_NAME, name)]
        )
        now = datetime.now(UTC) - timedelta(minutes=5)
        usage = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
                               "encipher_only", "decipher_only"), False)  # fmt: skip
        made = x509.CertificateBuilder(
            issuer_name=issuer or own, subject_name=own, public_key=key.public_key(),
            serial_number=x509.random_serial_number(), not_valid_before=now,
            not_valid_after=now + timedelta(days=365 * _YEARS),
        )  # fmt: skip
        made = made.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        made = made.add_extension(
            x509.KeyUsage(digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, **usage), True
        )
        made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        above = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
        made = made.add_extension(above, critical=False)
        if not authority:
            made = made.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        return made.sign(issuer_key, hashes.SHA256())

    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = certificate(f"{name}, root", root_key, None, root_key, True)
    leaf = certificate(name, key, root.subject, root_key, False)
    pem = serialization.Encoding.PEM
    secret = (pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    files = {ROOT: root.public_bytes(pem), CHAIN: leaf.public_bytes(pem) + root.public_bytes(pem),
             KEY: key.private_bytes(*secret), _ROOT_KEY: root_key.private_bytes(*secret)}  # fmt: skip
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
        for file, content in files.items():
            # Made with its mode, and only where nothing has that name: a key is nobody else's for a moment.
            mode = 0o600 if file in (KEY, _ROOT_KEY) else 0o644
            with os.fdopen(os.open(folder / file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as opened:
                opened.write(content)
    except FileExistsError:
        raise ConfigError(f"{folder} is there already", "sign with it, or name another with out=") from None
    except OSError as error:
        raise ResourceError(f"{folder} cannot be written: {error.strerror}", hint_for(error, "with out=")) from error


class Signer:
    """Signs files with the key in a folder that :func:`make_identity` made, or that holds :data:`CHAIN` and
    :data:`KEY`.

    Raises:
        ConfigError: there is none, others may read it, or c2pa-python is not installed.
    """

    def __init__(self, folder: Path) -> None:
        _needs("c2pa", "sign=")
        import c2pa

        for file in (CHAIN, KEY):
            if not (folder / file).is_file():
                raise ConfigError(f"sign={folder}: it has no {file}", f"name a folder with a key, or {_INIT}")
        if (folder / KEY).stat().st_mode & 0o077:
            raise ConfigError(f"sign={folder}: others may read its {KEY}", f"chmod 600 {folder / KEY}")
        try:
            info = c2pa.C2paSignerInfo(b"es256", (folder / CHAIN).read_bytes(), (folder / KEY).read_bytes(), None)
            self._signer = c2pa.Signer.from_info(info)
        except (OSError, ValueError, c2pa.C2paError) as error:
            raise ConfigError(f"sign={folder}: its key cannot be used: {error}", _INIT) from None
        # Thumbnails would make a small file twenty times as large.
        self._context = c2pa.Context(c2pa.Settings.from_dict({"builder": {"thumbnail": {"enabled": False}}}))

    def sign_set(
        self, folder: Path, provenance: Provenance, arrangement: Arrangement, files: list[str], overview: list[str]
    ) -> None:
        """Signs the samples in a folder, a file each, and what shows some of them; not items of the data."""
        for index, name in enumerate(files):
            if arrangement.generated(index):
                self.sign(folder / name, provenance.of_sample(arrangement, index))
        for name in overview:
            self.sign(folder / name, provenance.of_set(arrangement))

    def sign(self, path: Path, about: Mapping[str, Any]) -> None:
        """Signs a finished file; raises DataError where it cannot be."""
        import c2pa

        action = {"action": "c2pa.created", "softwareAgent": f"aigc {__version__}", "digitalSourceType": kind_of(about)}
        manifest = {
            "claim_generator_info": [{"name": "aigc", "version": __version__}],
            "title": path.name,
            "assertions": [
                {"label": "c2pa.actions", "data": {"actions": [action]}},
                {"label": _OURS, "data": dict(about)},
            ],
        }  # fmt: skip
        try:
            with replacing(path) as part:
                named = part.with_name(f"{part.name}{path.suffix}")  # by which the format is known
                with c2pa.Builder(manifest, context=self._context) as builder:
                    builder.sign_file(path, named, self._signer)
                named.replace(part)
        except c2pa.C2paError as error:
            raise DataError(f"{path.name} cannot be signed: {error}", "leave sign= out") from None


@dataclass(frozen=True)
class Signature:
    """What a file's signature says: `valid` where nothing was changed since, `trusted` where it goes back to a root
    that is known; else `problems` by C2PA's names."""

    by: str
    valid: bool
    trusted: bool
    problems: tuple[str, ...]
    claims: dict[str, Any]


def root_certificate(root: Path) -> str:
    """The certificate, PEM, that ``trust=`` names: a file, or a folder of :func:`make_identity`.

    Raises:
        ConfigError: there is none.
    """
    file, hint = root / ROOT if root.is_dir() else root, "name a root certificate (PEM), or a folder with one"
    if not file.is_file():
        raise ConfigError(f"trust={root}: there is no {file}", hint)
    try:
        text = file.read_text(encoding="ascii", errors="ignore")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (OSError, ValueError) as error:
        why = f"cannot be read: {error.strerror}" if isinstance(error, PermissionError) else "holds no certificate"
        raise ConfigError(f"trust={root}: {file.name} {why}", hint) from None
    return text


def read_signature(path: Path, root: Path | None = None) -> Signature | str | None:
    """The signature in a file, checked; a sentence where there is one and it cannot be; None where there is none.

    `root` is a folder of :func:`make_identity`, or a certificate, that is to be trusted.
    """
    if path.suffix.lower() not in SIGNED or b"c2pa" not in path.read_bytes():
        return None
    if find_spec("c2pa") is None:
        return f"it carries content credentials, which need pip install {EXTRA} to be checked"
    import c2pa

    settings = {} if root is None else {"trust": {"user_anchors": root_certificate(root)}}
    try:
        with c2pa.Reader(path, context=c2pa.Context(c2pa.Settings.from_dict(settings))) as reader:
            store = json.loads(reader.json())
    except c2pa.C2paError as error:
        name = str(error).partition(":")[0]
        return None if name == "ManifestNotFound" else f"its content credentials cannot be read: {error}"
    return _signature(store)


def _signature(store: Mapping[str, Any]) -> Signature:
    manifest = store.get("manifests", {}).get(store.get("active_manifest"), {})
    by = manifest.get("signature_info", {})
    claims: dict[str, Any] = {}
    for assertion in manifest.get("assertions", ()):
        with suppress(TypeError, ValueError):
            if assertion.get("label") == _OURS:
                claims = dict(assertion["data"])
    state = store.get("validation_state")
    problems = [status.get("code", "") for status in store.get("validation_status", ())]
    return Signature(
        by=str(by.get("common_name") or by.get("issuer") or "somebody"),
        valid=state in ("Valid", "Trusted"), trusted=state == "Trusted",
        problems=tuple(code for code in problems if code != "signingCredential.untrusted"), claims=claims,
    )  # fmt: skip
