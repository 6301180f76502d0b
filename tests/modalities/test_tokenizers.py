import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from aigc_cli.config.schema import check
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.tokenizer_files import restore_tokenizer
from aigc_cli.modalities.tokenizers import (
    FIRST,
    LONGEST_TOKEN,
    UNK,
    BPETokenizer,
    ByteTokenizer,
    TokenizerConfig,
    train_tokenizer,
)

TEXT = "the cat sat on the mat, the rat sat on the cat: 'tis the end.\n" * 20 + "日本語 привет\r\n" * 3


def config(kind, vocab_size=300):
    return TokenizerConfig(kind=kind, vocab_size=vocab_size, path=None)


def trained(kind, text=TEXT, vocab_size=300):
    return train_tokenizer(config(kind, vocab_size), [text], len(text))


BPE, BYTE = trained("bpe"), ByteTokenizer()


@pytest.mark.parametrize("tokenizer", [BPE, BYTE], ids=["bpe", "byte"])
@given(text=st.text(max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_text_comes_back(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids.tolist()) == text
    assert ids.min(initial=FIRST) >= FIRST
    assert ids.max(initial=0) < tokenizer.vocab_size


@given(text=st.text(alphabet=sorted(set(TEXT)), max_size=60))
@settings(max_examples=100, deadline=None)
def test_known_characters_come_back(text):
    tokenizer = trained("char")
    assert tokenizer.decode(tokenizer.encode(text).tolist()) == text
    assert len(tokenizer.encode(text)) == len(text)


@pytest.mark.parametrize("kind", ["char", "byte", "bpe"])
def test_text_that_spells_a_special_token_is_text(kind):
    text = "<pad><bos><eos><unk> [PAD] </s> <|endoftext|>"
    tokenizer = trained(kind, TEXT + text)
    assert tokenizer.encode(text).min() >= FIRST
    assert tokenizer.decode(tokenizer.encode(text).tolist()) == text


@pytest.mark.parametrize("tokenizer", [BPE, BYTE, trained("char", TEXT + "ä")], ids=["bpe", "byte", "char"])
def test_half_of_a_surrogate_pair_is_no_text(tokenizer):
    with pytest.raises(UnicodeEncodeError):
        tokenizer.encode("a\ud800b")


def test_char_has_the_characters_of_the_text_and_one_for_all_others():
    tokenizer = trained("char", "banana\n")
    assert tokenizer.vocab_size == FIRST + 4
    assert tokenizer.encode("ban\n").tolist() == [6, 5, 7, 4]
    assert tokenizer.encode("b\N{SNOWMAN}z\0n").tolist() == [6, UNK, UNK, UNK, 7]
    assert tokenizer.decode([6, UNK, 1, 2, 0, 7]) == "b\N{REPLACEMENT CHARACTER}n"
    assert tokenizer.unknown("bzb\N{SNOWMAN}") == ["z", "\N{SNOWMAN}"]
    assert BPE.unknown("\N{SNOWMAN}") == []


def test_bytes_that_are_no_text_show_as_such():
    assert BYTE.decode([FIRST + 0xE6, FIRST + 0x97]) == "\N{REPLACEMENT CHARACTER}"
    assert BPE.decode(BPE.encode("日").tolist()[:-1]).startswith("\N{REPLACEMENT CHARACTER}")


def test_bpe_merges_what_comes_together():
    assert BPE.vocab_size == 300
    assert len(BPE.encode("the cat")) < len("the cat")
    assert len(BPE.encode("the")) == 1
    assert BPE.encode("the ").tolist()[:1] == BPE.encode("the").tolist()
    split = [BPE.decode([token]) for token in BPE.encode("cat sat").tolist()]
    assert not any(" " in token[1:] for token in split), "no token reaches over words"


def test_bpe_of_a_text_too_small_has_fewer_tokens():
    tokenizer = trained("bpe", "ab ab", vocab_size=50_000)
    assert tokenizer.vocab_size == FIRST + 256 + 1
    assert tokenizer.decode(tokenizer.encode("ab ab").tolist()) == "ab ab"


def test_two_merges_to_one_token():
    once = FIRST + ord("a")
    tokenizer = BPETokenizer([(once, once), (260, once), (once, 260), (261, once)])
    assert tokenizer.vocab_size == 260 + 3  # aa, aaa by two ways, aaaa
    assert restore_tokenizer(tokenizer.state()).vocab_size == tokenizer.vocab_size
    for length in range(1, 12):
        assert tokenizer.decode(tokenizer.encode("a" * length).tolist()) == "a" * length


def test_training_repeats_itself_in_other_processes_and_on_other_cores():
    code = (
        "import sys, json\n"
        "from aigc_cli.modalities.tokenizers import TokenizerConfig, train_tokenizer\n"
        "text = sys.stdin.buffer.read().decode()\n"
        "pieces = [text[i : i + 100] for i in range(0, len(text), 100)]\n"
        "config = TokenizerConfig(kind='bpe', vocab_size=320, path=None)\n"
        "print(json.dumps(train_tokenizer(config, pieces, len(text)).state()))\n"
    )
    found = set()
    for threads, seed in (("1", "1"), ("4", "2")):
        environment = {**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", code], input=TEXT.encode(), env=environment, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        found.add(done.stdout)
    assert len(found) == 1


@pytest.mark.parametrize("kind", ["char", "byte", "bpe"])
def test_state_and_pickle_make_the_same_tokenizer(kind):
    tokenizer = trained(kind)
    tokenizer.encode(TEXT)
    for other in (restore_tokenizer(json.loads(json.dumps(tokenizer.state()))), pickle.loads(pickle.dumps(tokenizer))):
        assert other.vocab_size == tokenizer.vocab_size
        assert np.array_equal(other.encode(TEXT), tokenizer.encode(TEXT))
        assert other.state() == tokenizer.state()


BYTES = list(range(FIRST, FIRST + 256))


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({}, "kind"),
        ({"kind": "os.system"}, "no tokenizer of kind"),
        ({"kind": ["char"]}, "no tokenizer of kind"),
        ({"kind": "char"}, "characters"),
        ({"kind": "char", "characters": ["a", "b"]}, "not text"),
        ({"kind": "char", "characters": "ba"}, "not in order"),
        ({"kind": "char", "characters": "aa"}, "not in order"),
        ({"kind": "char", "characters": "a\ud800"}, "surrogates not allowed"),
        ({"kind": "bpe", "merges": {}}, "not a list"),
        ({"kind": "bpe", "merges": [[4]]}, "not a merge"),
        ({"kind": "bpe", "merges": [[4, "5"]]}, "not a merge"),
        ({"kind": "bpe", "merges": [[4, True]]}, "not a merge"),
        ({"kind": "bpe", "merges": [[3, 4]]}, "not a merge"),
        ({"kind": "bpe", "merges": [[4, 260]]}, "range"),
        ({"kind": "bpe", "merges": [[4, -5]]}, "not a merge"),
        ({"kind": "bpe", "merges": [[4, 4]] + [[token, token] for token in range(260, 300)]}, "more than 64 bytes"),
    ],
)
def test_a_state_that_is_none(state, words):
    with pytest.raises(ValueError, match=words):
        restore_tokenizer(state)


def test_tokens_have_a_bound():
    tokenizer = trained("bpe", "-" * 5000 + "\n" + "-" * 5000, vocab_size=400)
    assert max(len(tokenizer.decode([token])) for token in range(FIRST, tokenizer.vocab_size)) <= LONGEST_TOKEN


def test_a_vocabulary_must_hold_the_bytes():
    with pytest.raises(ConfigError, match=r"vocab_size=259 cannot hold .* 260"):
        check("data.tokenizer", TokenizerConfig, {"kind": "bpe", "vocab_size": 259, "path": None})
    assert check("", TokenizerConfig, {"kind": "char", "vocab_size": 5, "path": None}).kind == "char"


def test_the_library_takes_files_that_ours_are_safe_from():
    saved = json.loads(tokenizers.Tokenizer(tokenizers.models.BPE(vocab={"a": 40_000_000}, merges=[])).to_str())
    slow = {"type": "Split", "pattern": {"Regex": "(a|aa)+$"}, "behavior": "Isolated", "invert": False}
    library = tokenizers.Tokenizer.from_str(json.dumps({**saved, "pre_tokenizer": slow}))
    assert library.token_to_id("a") == 40_000_000
    assert library.encode("aaa").ids
