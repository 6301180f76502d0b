from pathlib import Path

import pytest

from aigc_cli.errors import ConfigError, DataError
from aigc_cli.modalities.base import modality
from aigc_cli.modalities.prompts import Prompt, read_prompts, text_with_gaps, tokens_with_gaps
from aigc_cli.modalities.text import TextCodec
from aigc_cli.modalities.tokenizers import BOS, EOS, FIRST, BPETokenizer, ByteTokenizer, CharTokenizer

MASK = 99


def prompt(text: str) -> Prompt:
    return Prompt(text, "prompt=")


def chars(start: int = EOS) -> TextCodec:
    return TextCodec(CharTokenizer(" abc"), start)


def merged() -> TextCodec:
    """ " a", " ab", "c " are tokens."""
    space, a, b, c = (FIRST + ord(letter) for letter in " abc")
    return TextCodec(BPETokenizer([(space, a), (FIRST + 256, b), (c, c)]), EOS)


def test_a_prompt_begins_as_items_do() -> None:
    text = modality("text")
    assert text.parse("ab", chars()).content.tolist() == [[5, 6]]
    assert text.parse("ab", chars(BOS)).content.tolist() == [[BOS, 5, 6]]
    assert tokens_with_gaps(prompt("a__"), chars(BOS), MASK) == [BOS, 5, MASK, MASK, EOS]


def test_neighbouring_masks_are_one_gap() -> None:
    assert text_with_gaps([MASK, MASK, 5, 6, MASK, 7], chars(), MASK) == "____ab____c"
    assert text_with_gaps([5, 6], chars(), MASK) == "ab"


@pytest.mark.parametrize(
    ("text", "gap", "expected"),
    [
        ("a ____ b", None, [5, 4, MASK, MASK, MASK, MASK, 4, 6]),
        ("__", None, [MASK, MASK]),
        ("__a___", None, [MASK, MASK, 5, MASK, MASK, MASK]),
        ("a____b__c", 1, [5, MASK, 6, MASK, 7]),
        ("a__b", 3, [5, MASK, MASK, MASK, 6]),
    ],
)
def test_gaps(text: str, gap: int | None, expected: list[int]) -> None:
    assert tokens_with_gaps(prompt(text), chars(), MASK, gap) == expected


def test_the_space_before_a_gap_is_the_gap_s_where_tokens_have_it() -> None:
    space, a = (FIRST + ord(letter) for letter in " a")
    assert tokens_with_gaps(prompt("a __ a"), merged(), MASK) == [a, MASK, MASK, FIRST + 256]
    assert tokens_with_gaps(prompt("a __ a"), TextCodec(ByteTokenizer(), EOS), MASK) == [a, space, MASK, MASK, space, a]


def test_one_underscore_is_no_gap() -> None:
    with pytest.raises(ConfigError, match="prompt= has no gap to fill"):
        tokens_with_gaps(prompt("a_b"), chars(), MASK)


def test_complaints_say_where() -> None:
    with pytest.raises(ConfigError, match=r"line 3 of p: the vocabulary of this run has no 'x'"):
        tokens_with_gaps(Prompt("ax__", "line 3 of p"), chars(), MASK)


def test_tokens_that_begin_alike_extend_each_other() -> None:
    codec = merged()
    space, a, c = (FIRST + ord(letter) for letter in " ac")
    assert codec.extensions(space) == [space, FIRST + 256, FIRST + 257]
    assert codec.extensions(FIRST + 256) == [FIRST + 256, FIRST + 257]
    assert codec.extensions(FIRST + 257) == [FIRST + 257]
    assert codec.extensions(a) == [a]
    assert codec.extensions(c) == [c, FIRST + 258]


def test_a_prompt_a_line(tmp_path: Path) -> None:
    file = tmp_path / "p.txt"
    file.write_bytes("\ufeffone\r\n two \nthree\u2028four".encode())
    found = read_prompts(file)
    assert [one.text for one in found] == ["one", " two ", "three\u2028four"]
    assert found[1].where == f"line 2 of {file}"


@pytest.mark.parametrize(
    ("content", "kind", "complaint"),
    [(b"", ConfigError, "is empty"), (b"\n", ConfigError, "is empty"), (b"a\n \nb", ConfigError, "line 2"),
     (b"a\xff", DataError, "not UTF-8"), (None, DataError, "no such file")],
)  # fmt: skip
def test_files_that_are_none(tmp_path: Path, content: bytes | None, kind: type[Exception], complaint: str) -> None:
    if content is not None:
        (tmp_path / "p.txt").write_bytes(content)
    with pytest.raises(kind, match=complaint) as caught:
        read_prompts(tmp_path / "p.txt")
    assert "line" in caught.value.hint  # type: ignore[attr-defined]
