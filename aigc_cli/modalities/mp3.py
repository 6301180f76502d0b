"""How long an MP3 of variable bitrate is that does not say so: libsndfile guesses it by its first frame, and reads no
further than that.

The header of such a frame is as ISO/IEC 11172-3 (2.4.1) has it, and the frame that says how many there are as Xing's
encoder began to write it.
"""

from __future__ import annotations

import struct

_BITRATES = {
    True: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),  # of MPEG 1, from index 1 on, in kbit/s
    False: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # by the version
_SEARCHED = 1 << 16  # bytes in which a frame is looked for
_ROOM = 8  # the index of a bitrate whose frames have room for a count


def is_mp3(head: bytes) -> bool:
    """Whether a file that begins so is an MP3: with tags, or with a frame."""
    return head.startswith(b"ID3") or _size(head, 0) > 0


def with_length(content: bytes) -> bytes:
    """The same MP3, with a frame before the others that says how many there are, where it needs one."""
    start = _begin(content)
    if start is None or any(tag in content[start : start + 200] for tag in (b"Xing", b"Info", b"VBRI")):
        return content
    at, count, bitrates = start, 0, set()
    while size := _size(content, at):
        bitrates.add(content[at + 2] >> 4)
        at, count = at + size, count + 1
    if len(bitrates) < 2:  # then the size of the file says it
        return content
    second, third, fourth = content[start + 1] | 1, content[start + 2] & 0x0C | _ROOM << 4, content[start + 3]
    mono, first = fourth >> 6 == 3, second >> 3 & 3 == 3
    side = {(True, False): 32, (True, True): 17, (False, False): 17, (False, True): 9}[first, mono]
    head = bytes((0xFF, second, third, fourth)) + bytes(side) + b"Xing" + struct.pack(">II", 1, count)
    return content[:start] + head.ljust(_size(head, 0), b"\0") + content[start:]


def _begin(content: bytes) -> int | None:
    """Where the first frame is that another follows, after tags."""
    start = 0
    if content.startswith(b"ID3") and len(content) > 10:
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(content[6:10], (21, 14, 7, 0), strict=True))
    for at in range(start, min(start + _SEARCHED, len(content) - 4)):
        size = _size(content, at) if content[at] == 0xFF else 0
        if size and _size(content, at + size):
            return at
    return None


def _size(content: bytes, at: int) -> int:
    """How many bytes the frame of layer III at a place has; 0 where there is none."""
    if at + 4 > len(content) or content[at] != 0xFF or content[at + 1] & 0xE6 != 0xE2:
        return 0
    version, index, rate = content[at + 1] >> 3 & 3, content[at + 2] >> 4, content[at + 2] >> 2 & 3
    if version == 1 or not 0 < index < 15 or rate == 3:
        return 0
    bits = 1000 * _BITRATES[version == 3][index - 1]
    return (144 if version == 3 else 72) * bits // _RATES[version][rate] + (content[at + 2] >> 1 & 1)
