"""Downloads that are either whole and right, or not there at all."""

from __future__ import annotations

import hashlib
import http.client
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from aigc_cli import __version__
from aigc_cli.errors import DataError, ResourceError
from aigc_cli.files import checksum, hint_for, replacing

CHUNK = 1 << 20
MARKUP = (b"<!doctype html", b"<html", b"<?xml", b"<head")


class Refused(Exception):
    """Why one address did not give the file."""


def download(
    urls: Sequence[str],
    path: Path,
    *,
    sha256: str | None = None,
    md5: str | None = None,
    timeout: float = 30.0,
    max_bytes: int = 20 * 10**9,
) -> Path:
    """The file at `path`, fetched from the first of `urls` that gives it; one that is there with the right sum stays.

    The body goes to a temporary file beside `path`, which is renamed at the end: nothing is ever left half-written.

    Raises:
        DataError: no address gave the file: no network, an HTML page, a truncated body, a wrong sum.
        ResourceError: it cannot be written.
    """
    sums = {name: value.lower() for name, value in (("sha256", sha256), ("md5", md5)) if value}
    if path.is_file() and all(checksum(path, name) == value for name, value in sums.items()):
        return path
    reasons = []
    for url in urls:
        try:
            print(f"downloading {url}", file=sys.stderr)
            _fetch(url, path, sums, timeout, max_bytes)
            return path
        except Refused as reason:
            reasons.append(f"{url}: {reason}")
    expected = "".join(f" ({name} {value})" for name, value in sums.items())
    raise DataError(
        f"{path.name} could not be downloaded: {'; '.join(reasons)}",
        f"download {' or '.join(urls)}{expected} by other means and put it at {path}",
    )


def _fetch(url: str, path: Path, sums: dict[str, str], timeout: float, max_bytes: int) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part, _open(url, timeout) as answer, part.open("wb") as file:
            _copy(answer, file, path.name, sums, max_bytes)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        hint = hint_for(error, "with AIGC_CACHE")
        raise ResourceError(f"cannot write {path}: {error.strerror or error}", hint) from error


def _open(url: str, timeout: float) -> Any:
    if not url.startswith(("http://", "https://")):
        raise Refused("not an http address")
    request = urllib.request.Request(url, headers={"User-Agent": f"aigc/{__version__}"})
    try:
        return urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        raise Refused(f"the server answered {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise Refused(f"no connection ({error.reason})") from error
    except (OSError, http.client.HTTPException) as error:
        raise Refused(f"no connection ({error})") from error


def _copy(answer: Any, file: IO[bytes], name: str, sums: dict[str, str], max_bytes: int) -> None:
    kind = answer.headers.get_content_type()
    if kind in ("text/html", "application/xhtml+xml"):
        raise Refused("it is an HTML page, not the file")
    length = answer.headers.get("Content-Length")
    expected = int(length) if length and length.isdigit() else None
    if expected is not None and expected > max_bytes:
        raise Refused(f"it has {expected} bytes, more than the {max_bytes} allowed")
    digests = {algorithm: hashlib.new(algorithm, usedforsecurity=False) for algorithm in sums}
    received = 0
    with tqdm(total=expected, unit="B", unit_scale=True, desc=name, disable=None, leave=False) as bar:
        for block in _blocks(answer):
            if not received and block.lstrip()[:16].lower().startswith(MARKUP):
                raise Refused("it is an HTML page, not the file")
            received += len(block)
            if received > max_bytes:
                raise Refused(f"it has more than the {max_bytes} bytes allowed")
            for digest in digests.values():
                digest.update(block)
            file.write(block)
            bar.update(len(block))
    if expected is not None and received != expected:
        raise Refused(f"it is truncated: {received} of {expected} bytes arrived")
    for algorithm, digest in digests.items():
        if digest.hexdigest() != sums[algorithm]:
            raise Refused(f"its {algorithm} is {digest.hexdigest()}, not {sums[algorithm]}")


def _blocks(answer: Any) -> Iterable[bytes]:
    while True:
        try:
            block = answer.read(CHUNK)
        except http.client.IncompleteRead as error:
            block = error.partial
        except (OSError, http.client.HTTPException) as error:
            raise Refused(f"the connection broke: {error or type(error).__name__}") from error
        if not block:
            return
        yield block
