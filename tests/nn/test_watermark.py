from pathlib import Path

import pytest
import torch

from aigc_cli.errors import ConfigError
from aigc_cli.nn.decoding import Choice, choose
from aigc_cli.nn.watermark import GreenList, Key, binomial_tail, text_score, usual_width

KEY = Key("a secret of mine")


@pytest.fixture(scope="module")
def green() -> GreenList:
    return GreenList(KEY, 500, range(4))


def drawn(mark: GreenList | None, length: int, rows: int = 64) -> list[list[int]]:
    """Texts of a model that finds all tokens equally likely."""
    draws = torch.rand(rows, length, generator=torch.Generator().manual_seed(0))
    tokens = [torch.full((rows,), 5)]
    for place in range(length):
        beside = (tokens[-1][:, None], None)
        tokens.append(choose(torch.zeros(rows, 500), Choice(mark=mark), draws[:, place], beside=beside))
    return torch.stack(tokens[1:], 1).tolist()


def test_a_mark_is_found_by_its_key_and_by_no_other(green: GreenList) -> None:
    marked, plain = drawn(green, 60), drawn(None, 60)
    assert sum(green.score([row]).found for row in marked) > 60
    other = GreenList(Key("a secret of yours"), 500, range(4))
    for scores in ([other.score([row]) for row in marked], [green.score([row]) for row in plain]):
        assert not any(score.found for score in scores)
        assert abs(sum(score.z for score in scores)) / 64 < 0.5


def test_a_quarter_of_all_pairs_is_green_and_another_after_each_token(green: GreenList) -> None:
    every = torch.arange(500)
    table = green.green(every[:, None, None], every)
    assert abs(float(table.double().mean()) - 0.25) < 0.005
    assert abs(float((table[10] & table[11]).double().mean()) - 0.0625) < 0.04


def test_pairs_count_once_and_special_tokens_not_at_all(green: GreenList) -> None:
    assert green.score([[7, 8, 7, 8, 7], [8, 7]]).places == 2
    assert green.score([[1, 7, 2], []]) == (0.0, 1.0, 0)


def test_special_tokens_stay_as_likely_as_tokens_are_on_average(green: GreenList) -> None:
    weights = green.weights(torch.arange(4, 300)[:, None])
    assert abs(float(weights[:, 4:].mean() / weights[0, 0]) - 1) < 0.02
    assert weights[:, :4].unique().numel() == 1


def test_a_gap_is_tilted_by_what_follows_it_and_by_no_neighbour_that_is_open(green: GreenList) -> None:
    before, after = torch.tensor([[9], [-1], [500]]), torch.tensor([500, 11, -1])
    weights = green.weights(before, after)
    assert torch.equal(weights[0], green.weights(before[:1])[0])
    assert torch.equal(weights[1, 4:] > 1, green.green(torch.arange(500)[:, None], torch.tensor(11))[4:])
    assert bool((weights[2] == 1).all())


def test_what_top_k_keeps_out_stays_out(green: GreenList) -> None:
    logits = torch.randn(200, 500, generator=torch.Generator().manual_seed(1))
    draws, previous = torch.rand(200, generator=torch.Generator().manual_seed(2)), torch.full((200, 1), 9)
    tokens = choose(logits, Choice(top_k=3, mark=green), draws, beside=(previous, None))
    assert bool((logits.gather(1, tokens[:, None]) >= logits.topk(3).values[:, 2:]).all())


def test_where_there_are_few_tokens_more_of_them_count() -> None:
    mark = GreenList(KEY, 44, range(4), width=usual_width(44))
    draws = torch.rand(32, 100, generator=torch.Generator().manual_seed(0))
    rows = torch.full((32, 3), 5)
    for place in range(100):
        token = choose(torch.zeros(32, 44), Choice(mark=mark), draws[:, place], beside=(rows[:, -3:], None))
        rows = torch.cat([rows, token[:, None]], 1)
    scores = [text_score(KEY, 44, range(4), [row]) for row in rows.tolist()]
    assert sum(score.found for score in scores) > 29
    assert not text_score(Key("a secret of yours"), 44, range(4), [rows[0].tolist()]).found


def test_a_key_may_lie_in_a_file_and_its_name_is_no_secret(tmp_path: Path) -> None:
    (tmp_path / "mark.key").write_text("a secret of mine\n")
    assert Key(str(tmp_path / "mark.key")).name == KEY.name != Key("a secret of yours").name
    for word in ("short", str(tmp_path / "other.key")):
        with pytest.raises(ConfigError):
            Key(word)


def test_the_tail_of_a_binomial() -> None:
    assert binomial_tail(3, 2, 0.5) == pytest.approx(0.5)
    assert binomial_tail(100, 0, 0.25) == pytest.approx(1)
    assert 0 < binomial_tail(2000, 1900, 0.25) < 1e-300 or binomial_tail(2000, 1900, 0.25) == 0
