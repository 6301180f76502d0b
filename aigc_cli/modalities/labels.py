"""The labels that say within a file that a model made it, in the file's own format, and how they are read back.

An XMP packet (Adobe, XMP Specification Part 1 and 3) holds three things: the IPTC's ``DigitalSourceType``, the implicit
label of GB 45438-2025 (``TC260:AIGC``, JSON), and our own record of what made the content. Every format has a place for
such a packet, so that one reader does for all: the packet is text, and is found by looking for it.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Mapping
from html import escape, unescape
from pathlib import Path
from typing import Any

from aigc_cli import __version__

_PACKET = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    'xmlns:TC260="http://www.tc260.org.cn/ns/AIGC/1.0/" xmlns:aigc="urn:aigc:provenance:1.0/" '
    '{attributes}/></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)
_FOUND = re.compile(rb"<x:xmpmeta.*?</x:xmpmeta>", re.DOTALL)
_ATTRIBUTE = r'{name}\s*=\s*"([^"]*)"|<{name}>([^<]*)</{name}>'
_SOURCE_TYPE, _GB, _OWN = "Iptc4xmpExt:DigitalSourceType", "TC260:AIGC", "aigc:Provenance"
#: How the box of an MP4 that holds XMP is named.
_XMP_BOX = bytes.fromhex("BE7ACFCB97A942E89C71999491E3AFAC")
#: What ends XMP in a GIF: from wherever a reader that knows no XMP jumps to, it leads to the end.
_TRAILER = bytes([1, *range(255, -1, -1), 0])
_LARGEST = 1 << 29  # bytes of a file that is looked through


def gb_label(about: Mapping[str, Any]) -> dict[str, str]:
    """The implicit label of GB 45438-2025, appendix E: label 1 is content that was generated; its number says which
    weights, seed and sample. Who passes it on may fill in the rest."""
    parts = (str(about.get("model_checksum", ""))[:16], about.get("seed"), about.get("index"))
    return {
        "Label": "1", "ContentProducer": f"aigc {__version__}", "ReservedCode1": "",
        "ProduceID": "-".join(str(part) for part in parts if part not in (None, "")),
        "ContentPropagator": "", "PropagateID": "", "ReservedCode2": "",
    }  # fmt: skip


def xmp_packet(about: Mapping[str, Any], kind: str | None) -> str:
    """The XMP packet of some content; `kind` is its digital source type, None where nothing made it that is to be
    labelled, such as an item of the data for comparison, and then `about` is all that it holds."""
    values = {_OWN: json.dumps(dict(about))}
    if kind is not None:
        values = {_SOURCE_TYPE: kind, _GB: json.dumps(gb_label(about)), **values}
    return _PACKET.format(attributes=" ".join(f'{name}="{escape(value)}"' for name, value in values.items()))


def embed(path: Path, packet: str, kind: str) -> None:
    """Puts a packet into a finished file of a `kind` whose writer has no way to: WAV, FLAC, GIF or MP4."""
    path.write_bytes(_PLACES[kind](path.read_bytes(), packet.encode()))


def _into_wav(content: bytes, packet: bytes) -> bytes:
    """As a chunk ``_PMX``, which comes last."""
    chunk = b"_PMX" + struct.pack("<I", len(packet)) + packet + b"\0" * (len(packet) % 2)
    return b"RIFF" + struct.pack("<I", len(content) + len(chunk) - 8) + content[8:] + chunk


def _into_flac(content: bytes, packet: bytes) -> bytes:
    """As entries of the Vorbis comment, where players and other tools look: the packet, and what it says in plain."""
    at, last = 4, False
    while not last:
        head = content[at]
        last, kind, length = bool(head & 128), head & 127, int.from_bytes(content[at + 1 : at + 4], "big")
        if kind == 4:
            break
        at += 4 + length
    else:
        raise ValueError("the FLAC has no comment to add to")
    body = content[at + 4 : at + 4 + length]
    vendor = 4 + int.from_bytes(body[:4], "little")
    count = int.from_bytes(body[vendor : vendor + 4], "little")
    text = packet.decode()
    entries = {"XMP": text, "DIGITALSOURCETYPE": _value(text, _SOURCE_TYPE), "AIGC": _value(text, _GB)}
    added = [f"{name}={value}".encode() for name, value in entries.items() if value]
    body = body[:vendor] + struct.pack("<I", count + len(added)) + body[vendor + 4 :]
    body += b"".join(struct.pack("<I", len(entry)) + entry for entry in added)
    return content[:at] + bytes([head]) + len(body).to_bytes(3, "big") + body + content[at + 4 + length :]


def _into_gif(content: bytes, packet: bytes) -> bytes:
    """As an application extension before the end."""
    return content[:-1] + b"\x21\xff\x0bXMP DataXMP" + packet + _TRAILER + content[-1:]


def _into_mp4(content: bytes, packet: bytes) -> bytes:
    """As a box at the end."""
    return content + struct.pack(">I", 24 + len(packet)) + b"uuid" + _XMP_BOX + packet


_PLACES: dict[str, Callable[[bytes, bytes], bytes]] = {
    "WAV": _into_wav, "FLAC": _into_flac, "GIF": _into_gif, "MP4": _into_mp4
}  # fmt: skip


# reading


def read_label(path: Path) -> dict[str, Any]:
    """What a file says of itself, as far as it does: ``digital_source_type``, ``gb45438`` (the label, JSON) and
    ``provenance``. Nothing of this is proven: anyone may write it."""
    if path.stat().st_size > _LARGEST:
        return {}
    found: dict[str, Any] = {}
    for packet in _FOUND.findall(path.read_bytes()):
        text = packet.decode("utf-8", "replace")
        if kind := _value(text, _SOURCE_TYPE):
            found.setdefault("digital_source_type", kind)
        for name, key in ((_GB, "gb45438"), (_OWN, "provenance")):
            try:
                value = json.loads(_value(text, name) or "null")
            except (ValueError, RecursionError):
                continue
            if isinstance(value, dict):
                found.setdefault(key, value)
    return found


def _value(text: str, name: str) -> str:
    match = re.search(_ATTRIBUTE.format(name=name), text)
    return unescape(match[1] or match[2] or "") if match else ""
