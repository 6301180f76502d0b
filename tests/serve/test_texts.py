"""Text as it comes: whole characters, nothing from the first stop on, and a name for each token."""

import asyncio
import json
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from aigc_cli.modalities.tokenizers import CharTokenizer, Tokenizer
from aigc_cli.serve.choices import Choice
from aigc_cli.serve.completions import CompletionRequest, _events
from aigc_cli.serve.texts import Growing, Spelling
from aigc_cli.serve.tickets import Ticket
from aigc_cli.serve.writing import Writing, Written


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


class Pieces(Tokenizer):
    """Tokens that are parts of characters, and one twice."""

    def __init__(self) -> None:
        super().__init__([b"a", b"\xe2", b"\x80", b"a", b"\xc3\xa9"])

    encode_all: Any = None
    state: Any = None


def test_each_token_has_a_name_of_its_own() -> None:
    spelling = Spelling(SimpleNamespace(tokenizer=Pieces()))
    names = [spelling.name(token) for token in range(9)]
    assert names == ["<pad>", "<bos>", "<eos>", "<unk>", "a", "bytes:\\xe2", "bytes:\\x80", "a#7", "\xe9"]
    plain = Spelling(SimpleNamespace(tokenizer=CharTokenizer("ab")))
    assert [plain.name(token) for token in (4, 5)] == ["a", "b"]


def test_log_probabilities_are_of_what_can_come_and_are_numbers() -> None:
    logits = torch.tensor([[0.5, -torch.inf, 0.1, -torch.inf, -torch.inf]])  # as where a prompt ends within a token
    rows: list[Any] = [SimpleNamespace(logprobs=5)]
    told = object.__new__(Writing)._told(logits, torch.tensor([2]), rows)[0]
    assert [token for token, _ in told.likeliest] == [0, 2]
    json.dumps(told, allow_nan=False)


def test_a_stream_has_the_log_probability_of_each_token_where_its_text_is() -> None:
    """Also of what is held back, as it may begin a stop, while nothing else is to be told."""

    async def streamed() -> list[dict[str, Any]]:
        spelling = Spelling(SimpleNamespace(tokenizer=CharTokenizer("abE")))
        loop, queue = asyncio.get_running_loop(), asyncio.Queue[Choice]()
        choice = Choice(0, "", [], Growing(0, ["END"]), spelling, 0, queue, loop)
        house: Any = SimpleNamespace(counts=SimpleNamespace(tokens=0, samples=0))
        for token in (5, 6):  # "a", "b"
            choice.take(Written(token, -1.0), None)
        told, ticket = list[dict[str, Any]](), Ticket(time.monotonic() + 5)
        async for event in _events(house, [choice], CompletionRequest(logprobs=0), {}, ticket):
            if not told:
                choice.take(Written(4, -2.0), None)  # "E", while the second of two pieces is already told
            elif not choice.ended:
                choice.take(Written(5, -3.0), None)
                choice.end(None)
            told += [] if "DONE" in event else json.loads(event.removeprefix("data: "))["choices"]
        return told

    told = asyncio.run(streamed())
    assert "".join(each["text"] for each in told) == "abEa"
    for key, values in (("token_logprobs", [-1, -1, -2, -3]), ("text_offset", [0, 1, 2, 3])):
        assert [value for each in told for value in each["logprobs"][key]] == values
