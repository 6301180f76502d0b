"""Text as it comes: whole characters, and nothing from the first stop on."""

import pytest

from aigc_cli.serve.texts import Growing


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_pieces_are_the_whole_and_each_is_text(size: int) -> None:
    text = "naïve — 中文, and \U0001f600!"
    data, growing = text.encode(), Growing()
    pieces = [growing.add(data[start : start + size]) for start in range(0, len(data), size)]
    assert "".join([*pieces, growing.add(b"", last=True)]) == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_what_is_cut_short_shows_as_it_does_in_a_whole_text() -> None:
    data, growing = b"a\xe2\x82\xe2\x82\xac\xff", Growing()
    pieces = [growing.add(bytes([byte])) for byte in data]
    assert "".join([*pieces, growing.add(b"", last=True)]) == data.decode("utf-8", "replace")


def test_a_stop_is_found_across_pieces_and_never_told() -> None:
    growing = Growing(stops=["END", "never"])
    assert [growing.add(part) for part in (b"some E", b"Nd, E", b"N", b"D and more")] == ["some ", "ENd, ", "", ""]
    assert growing.stopped
    assert growing.add(b"x", last=True) == ""


def test_what_only_begins_a_stop_is_told_in_the_end() -> None:
    growing = Growing(skip=2, stops=["END"])
    assert growing.add(b"..some EN") == "some "
    assert growing.add(b"", last=True) == "EN"
