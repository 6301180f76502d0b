"""Writing: the cache changes nothing, rows do not mind each other, each choice has its effect, beams find better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from aigc_cli.nn.decoding import Choice, Session, beam_search, choose, invert, penalized, write
from aigc_cli.nn.style import Style, TransformerConfig
from aigc_cli.nn.transformer import TokenTransformer

VOCAB = 17
PAD, STOP = 0, 2
LENGTH = 10
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14], [5, 6]]
STYLES: dict[str, dict[str, Any]] = {
    "modern": {"norm": "rms", "positions": "rotary", "mlp": "swiglu", "qk_norm": True, "bias": False},
    "classic": {"norm": "layer", "positions": "learned", "mlp": "gelu", "qk_norm": False, "bias": True},
}
GREEDY = Choice(temperature=0.0)


def network(style: str = "modern", length: int = LENGTH, *, cross: bool = False) -> TokenTransformer:
    """Random weights that are large enough for every context to have a next token of its own."""
    torch.manual_seed(0)
    config = TransformerConfig(layers=2, heads=2, width=16, feed_forward=2.0, dropout=0.0, style=Style(**STYLES[style]))
    model = TokenTransformer(config, VOCAB, length, causal=True, cross=cross)
    for parameter in model.parameters():
        parameter.data += 0.5 * torch.randn_like(parameter)
    return model.eval()


def session(model: TokenTransformer, prompts: Sequence[Sequence[int]], count: int, **memory: Any) -> Session:
    return Session(model, prompts, count, PAD, **memory)


def greedy(model: TokenTransformer, prompts: Sequence[Sequence[int]], count: int, stop: int | None = None) -> list[Any]:
    return continued(write(session(model, prompts, count), GREEDY, None, count, stop), prompts, count)


def continued(rows: Tensor, prompts: Sequence[Sequence[int]], count: int) -> list[list[int]]:
    return [row[len(prompt) : len(prompt) + count] for row, prompt in zip(rows.tolist(), prompts, strict=True)]


def recomputed(model: TokenTransformer, prompt: Sequence[int], count: int, **given: Tensor) -> list[int]:
    """The likeliest tokens, each from a whole pass over its window, with no cache and no batch."""
    tokens = list(prompt)
    start = max(0, len(tokens) - model.length)
    with torch.no_grad():
        for _ in range(count):
            if len(tokens) - start > model.length:
                start = len(tokens) - 1 - model.length // 2
            hidden = model.hidden(torch.tensor([tokens[start:]]), **{name: part[None] for name, part in given.items()})
            tokens.append(int(model.logits(hidden)[0, -1].argmax()))
    return tokens[len(prompt) :]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("length", [1, 2, 5, LENGTH, 40])
def test_greedy_with_the_cache_is_greedy_without(style: str, length: int) -> None:
    """Token for token, for prompts of unequal length, longer than the window too, and far beyond it."""
    model = network(style, length)
    assert greedy(model, PROMPTS, 25) == [recomputed(model, prompt, 25) for prompt in PROMPTS]


def test_writing_is_not_stuck() -> None:
    """The tests above compare something that varies."""
    assert len({tuple(row) for row in greedy(network(), PROMPTS, 25)}) == len(PROMPTS)
    assert len(set(greedy(network(), PROMPTS, 25)[0])) > 3


@pytest.mark.parametrize("choice", [GREEDY, Choice(), Choice(top_k=5, top_p=0.9), Choice(repetition_penalty=1.5)])
def test_a_row_does_not_depend_on_its_batch(choice: Choice) -> None:
    model, count = network(), 25
    uniform = torch.rand(len(PROMPTS), count, generator=torch.Generator().manual_seed(3))
    together = write(session(model, PROMPTS, count), choice, uniform, count, None)
    for row, prompt in enumerate(PROMPTS):
        alone = write(session(model, [prompt], count), choice, uniform[row : row + 1], count, None)
        assert continued(together, PROMPTS, count)[row] == continued(alone, [prompt], count)[0]


def test_rows_end_at_the_stop_token_and_are_padded() -> None:
    model = network()
    free = greedy(model, PROMPTS, 40)
    stop = free[0][4]
    stopped = greedy(model, PROMPTS, 40, stop)
    for row, expected in zip(stopped, free, strict=True):
        end = expected.index(stop) + 1 if stop in expected else len(expected)
        assert row == expected[:end] + [PAD] * (len(expected) - end)


def test_writing_stops_when_all_rows_have_ended() -> None:
    model = network(length=400)
    read = []
    model.stack.register_forward_hook(lambda *_: read.append(1))
    stop = greedy(model, [[5]], 1)[0][0]
    read.clear()
    assert greedy(model, [[5]], 200, stop)[0][:2] == [stop, PAD]
    assert len(read) <= 16


def test_the_first_token_may_be_one_of_a_few() -> None:
    """And beams, which have no others to choose from, take it too; what follows is free."""
    model, count = network(), 6
    first = torch.zeros(len(PROMPTS), VOCAB, dtype=torch.bool)
    first[:, [3, 16]] = True
    first[1] = True
    free = greedy(model, PROMPTS, count)
    rows = write(session(model, PROMPTS, count, first=first), GREEDY, None, count, None)
    bound = continued(rows, PROMPTS, count)
    assert bound[1] == free[1]
    assert all(row[0] in (3, 16) for row in (bound[0], bound[2], bound[3]))
    assert any(token not in (3, 16) for row in bound for token in row[1:])
    beams, _ = beam_search(session(model, PROMPTS, 2, first=first), 2, 2, length_penalty=1.0, stop=None)
    assert continued(beams, PROMPTS, 2)[0][0] in (3, 16)


def test_what_cannot_be_does_not_end_a_row() -> None:
    """With as many beams as tokens, the stop that no row may begin with is among the best."""
    first = torch.zeros(len(PROMPTS), VOCAB, dtype=torch.bool)
    first[:, [3, 16]] = True
    rows = session(network(), PROMPTS, 2, first=first)
    found, scores = beam_search(rows, VOCAB, 2, length_penalty=1.0, stop=5)
    assert all(row[0] in (3, 16) for row in continued(found, PROMPTS, 2))
    assert scores.isfinite().all()


# choosing


def drawn(logits: Sequence[float], choice: Choice, n: int = 4000) -> Tensor:
    """How often each token is taken, for draws that are evenly spread."""
    uniform = (torch.arange(n) + 0.5) / n
    tokens = choose(torch.tensor([logits]).expand(n, -1), choice, uniform)
    return torch.bincount(tokens, minlength=len(logits)) / n


SHARES = torch.tensor([0.1, 0.4, 0.05, 0.25, 0.2])
LOGITS = SHARES.log().tolist()


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (Choice(), [0.1, 0.4, 0.05, 0.25, 0.2]),
        (Choice(temperature=0.0), [0, 1, 0, 0, 0]),
        (Choice(temperature=0.5), (SHARES**2 / (SHARES**2).sum()).tolist()),
        (Choice(top_k=1), [0, 1, 0, 0, 0]),
        (Choice(top_k=2), [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0]),
        (Choice(top_k=99), [0.1, 0.4, 0.05, 0.25, 0.2]),
        (Choice(top_p=0.3), [0, 1, 0, 0, 0]),
        (Choice(top_p=0.5), [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0]),
        (Choice(top_p=1.0), [0.1, 0.4, 0.05, 0.25, 0.2]),
        (Choice(top_k=3, top_p=0.5), [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0]),
        (Choice(min_p=0.45), [0, 0.4 / 0.85, 0, 0.25 / 0.85, 0.2 / 0.85]),
        (Choice(min_p=1.0), [0, 1, 0, 0, 0]),
        (Choice(min_p=0.0), [0.1, 0.4, 0.05, 0.25, 0.2]),
    ],
)
def test_each_choice_draws_from_its_own_distribution(choice: Choice, expected: list[float]) -> None:
    torch.testing.assert_close(drawn(LOGITS, choice), torch.tensor(expected), atol=2e-3, rtol=0, check_dtype=False)


@pytest.mark.parametrize("temperature", [1e-300, 1e-39, 1e-7])
def test_a_temperature_at_which_scores_would_overflow_takes_the_best(temperature: float) -> None:
    logits = torch.tensor([[0.5, -torch.inf, 40.0, -90.0]])
    assert choose(logits, Choice(temperature), torch.tensor([0.3])).tolist() == [2]


def test_top_k_takes_exactly_k_of_tokens_that_tie() -> None:
    assert (drawn([0.0] * 6, Choice(top_k=2)) > 0).sum() == 2


def test_inverting_takes_no_place_without_a_share() -> None:
    shares = torch.tensor([0.0, 0.3, 0.0, 0.0, 0.7, 0.0])
    draws = torch.tensor([0.0, 0.3, 0.29999, 1 - 2**-24])
    assert invert(shares.expand(4, -1), draws).tolist() == [1, 4, 1, 4]


def test_the_penalty_lowers_what_was_seen_and_nothing_else() -> None:
    logits = torch.tensor([[2.0, -2.0, 2.0, -2.0]])
    seen = torch.tensor([[True, True, False, False]])
    assert penalized(logits, seen, 2.0).tolist() == [[1.0, -4.0, 2.0, -2.0]]


def test_the_penalty_makes_fewer_repeats() -> None:
    model, count = network(length=40), 30
    prompts = [[token] for token in range(3, 11)]

    def repeats(penalty: float) -> float:
        choice = Choice(temperature=0.0, repetition_penalty=penalty)
        rows = write(session(model, prompts, count), choice, None, count, None)
        return sum(len(row) - len(set(row)) for row in rows.tolist()) / len(rows)

    assert repeats(3.0) < repeats(1.2) < repeats(1.0)


def test_the_penalty_counts_the_prompt_but_not_its_padding() -> None:
    model = network()
    model.logits = lambda hidden: torch.ones(len(hidden), VOCAB)  # what was seen is all that tells tokens apart
    choice = Choice(temperature=0.0, repetition_penalty=2.0)
    prompts = [[5, 6, 7, 8], [9]]
    rows = write(session(model, prompts, VOCAB - 4), choice, None, VOCAB - 4, None)
    assert sorted(rows[0].tolist()) == list(range(VOCAB))
    assert rows[1].tolist() == [9, *(token for token in range(VOCAB - 3) if token != 9), PAD, PAD, PAD]


# beam search


def log_probability(model: TokenTransformer, prompt: Sequence[int], more: Sequence[int]) -> float:
    with torch.no_grad():
        tokens = torch.tensor([[*prompt, *more]])
        steps = model.logits(model.hidden(tokens[:, :-1])).log_softmax(-1)
        chosen = steps.gather(2, tokens[:, 1:, None])[0, len(prompt) - 1 :]
    return float(chosen.sum())


@pytest.mark.parametrize("stop", [None, STOP])
def test_one_beam_is_greedy(stop: int | None) -> None:
    model = network(length=40)
    rows, _ = beam_search(session(model, PROMPTS, 20), 1, 20, length_penalty=1.0, stop=stop)
    assert continued(rows, PROMPTS, 20) == greedy(model, PROMPTS, 20, stop)


def test_more_beams_find_rows_that_are_more_likely() -> None:
    model, count = network(length=40), 8
    prompts = [[token, token + 1] for token in range(3, 13)]
    found = []
    for beams in (1, 4):
        rows, scores = beam_search(session(model, prompts, count), beams, count, length_penalty=0.0, stop=None)
        own = [
            log_probability(model, p, more) for p, more in zip(prompts, continued(rows, prompts, count), strict=True)
        ]
        torch.testing.assert_close(scores, torch.tensor(own), atol=1e-4, rtol=1e-4)
        found.append(scores)
    assert (found[1] >= found[0] - 1e-5).all()
    assert (found[1] > found[0] + 1e-3).any()


def test_enough_beams_find_the_best_row_of_all() -> None:
    model = network(length=40)
    rows, scores = beam_search(session(model, [[5, 6]], 2), VOCAB, 2, length_penalty=0.0, stop=None)
    every = {(a, b): log_probability(model, [5, 6], [a, b]) for a in range(VOCAB) for b in range(VOCAB)}
    best = max(every, key=lambda pair: every[pair])
    assert tuple(rows[0, 2:].tolist()) == best
    assert scores.item() == pytest.approx(every[best], abs=1e-4)


def test_a_beam_does_not_depend_on_its_batch() -> None:
    model = network(length=5)
    together, _ = beam_search(session(model, PROMPTS, 12), 3, 12, length_penalty=1.0, stop=STOP)
    for row, prompt in enumerate(PROMPTS):
        alone, _ = beam_search(session(model, [prompt], 12), 3, 12, length_penalty=1.0, stop=STOP)
        assert continued(together, PROMPTS, 12)[row] == continued(alone, [prompt], 12)[0]


def test_the_length_penalty_prefers_longer_rows() -> None:
    model = network(length=40)
    prompts = [[token] for token in range(3, VOCAB)]

    def length(penalty: float) -> int:
        rows, _ = beam_search(session(model, prompts, 15), 4, 15, length_penalty=penalty, stop=STOP)
        return int((rows != PAD).sum())

    assert length(0.0) < length(3.0)


def test_beams_attend_to_the_memory_of_their_own_row() -> None:
    model = network(length=40, cross=True)
    memory = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(1))
    there = torch.tensor([[True] * 5, [True] * 2 + [False] * 3, [True] * 4 + [False]])
    prompts = [[1]] * 3

    def rows(which: slice, width: int) -> Tensor:
        own = session(model, prompts[which], 10, memory=memory[which, :width], memory_mask=there[which, :width])
        return beam_search(own, 3, 10, length_penalty=1.0, stop=STOP)[0]

    together = rows(slice(0, 3), 5)
    alone = torch.cat([rows(slice(0, 1), 5), rows(slice(1, 2), 2), rows(slice(2, 3), 4)])
    assert torch.equal(together, alone)
    assert len({tuple(row) for row in together.tolist()}) == 3


@pytest.mark.parametrize("style", STYLES)
def test_an_offset_is_added_wherever_a_row_is_read(style: str) -> None:
    """In prompts, in single tokens, and in windows that move on."""
    model, count = network(style), 14
    offset = torch.randn(len(PROMPTS), 16, generator=torch.Generator().manual_seed(1))
    rows = write(session(model, PROMPTS, count, offset=offset), GREEDY, None, count, None)
    expected = [recomputed(model, prompt, count, offset=own) for prompt, own in zip(PROMPTS, offset, strict=True)]
    assert continued(rows, PROMPTS, count) == expected
    assert expected != [recomputed(model, prompt, count) for prompt in PROMPTS]


def test_a_window_that_moves_on_attends_to_the_memory_still() -> None:
    model, count = network(cross=True), 14
    memory = torch.randn(len(PROMPTS), 5, 16, generator=torch.Generator().manual_seed(1))
    rows = write(session(model, PROMPTS, count, memory=memory), GREEDY, None, count, None)
    expected = [recomputed(model, prompt, count, memory=own) for prompt, own in zip(PROMPTS, memory, strict=True)]
    assert continued(rows, PROMPTS, count) == expected


def test_beams_keep_the_offset_of_their_own_row() -> None:
    model = network(length=40)
    offset = torch.randn(3, 16, generator=torch.Generator().manual_seed(1))

    def rows(which: slice) -> Tensor:
        own = session(model, [[1]] * len(offset[which]), 10, offset=offset[which])
        return beam_search(own, 3, 10, length_penalty=1.0, stop=STOP)[0]

    together = rows(slice(0, 3))
    assert torch.equal(together, torch.cat([rows(slice(row, row + 1)) for row in range(3)]))
    assert len({tuple(row) for row in together.tolist()}) == 3


@pytest.mark.parametrize("style", STYLES)
def test_rows_that_leave_and_join_do_not_disturb_the_others(style: str) -> None:
    """The longest leaves while its window is full, one joins, and those that stay write what they would alone."""
    model, count = network(style), 16
    running = session(model, [PROMPTS[1], PROMPTS[2]], count)
    with torch.no_grad():
        for _ in range(6):
            running.append(running.logits().argmax(-1))
        running.exchange([0], None, count - 6)  # short, where one was long
        running.append(running.logits().argmax(-1))
        joining = session(model, [PROMPTS[0], PROMPTS[3]], count)
        joining.append(joining.logits().argmax(-1))
        running.exchange([0], joining, count - 1)
        for _ in range(count - 7):
            running.append(running.logits().argmax(-1))
        running.exchange([0, 2], None, 7)
        for _ in range(6):
            running.append(running.logits().argmax(-1))
    rows, ends = running.tokens.tolist(), running.ends.tolist()
    assert rows[0][: len(PROMPTS[1]) + count] == [*PROMPTS[1], *recomputed(model, PROMPTS[1], count)]
    assert rows[1][: ends[1]] == [*PROMPTS[3], *recomputed(model, PROMPTS[3], count)]


def test_a_row_that_stays_needs_no_more_room_than_its_own() -> None:
    model = network()
    running = session(model, [PROMPTS[1], PROMPTS[2]], 5)
    with torch.no_grad():
        for _ in range(4):
            running.append(running.logits().argmax(-1))
        running.exchange([0], None, 1)  # less than the one that leaves has read
        running.append(running.logits().argmax(-1))
    assert running.tokens.tolist() == [[*PROMPTS[1], *recomputed(model, PROMPTS[1], 5)]]
