"""Tokenizers in the format of Hugging Face's programs, which give the same ids for the same text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aigc_cli.modalities.tokenizers import BOS, FIRST, PAD, SPECIALS, UNK, Tokenizer, letters_of_bytes

MASK = "<|aigc_mask|>"


def special(name: str) -> str:
    """How a special token is spelt there: as no text is, since a text that spells one out would be taken for it."""
    return f"<|aigc_{name}|>"


def portable(tokenizer: Tokenizer, *, begins: bool, length: int, masks: bool) -> Mapping[str, str]:
    """``tokenizer.json`` and ``tokenizer_config.json``.

    Args:
        tokenizer: of a run.
        begins: whether every text begins with ``bos``.
        length: the most tokens that a model reads.
        masks: whether there is a token more, which stands for a gap.
    """
    from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors
    from tokenizers import Tokenizer as Library

    state, spellings = tokenizer.state(), tokenizer.spellings()
    if tokenizer.kind == "char":
        words = [text.decode() for text in spellings]
        vocabulary = {special(name): token for name, token in SPECIALS}
        vocabulary |= {word: FIRST + place for place, word in enumerate(words)}
        library = Library(models.BPE(vocab=vocabulary, merges=[], unk_token=special("unk"), fuse_unk=False))
        library.decoder = decoders.Fuse()
    else:
        letters = letters_of_bytes()
        spelled = ["", "", "", "", *("".join(letters[byte] for byte in text) for text in spellings)]
        vocabulary = {special(name): token for name, token in SPECIALS}
        vocabulary |= {word: token for token, word in enumerate(spelled) if token >= FIRST}
        merges = [(spelled[first], spelled[second]) for first, second in state.get("merges", ())]
        library = Library(models.BPE(vocab=vocabulary, merges=merges))
        library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=tokenizer.kind == "bpe")
        library.decoder = decoders.ByteLevel()
    names = [special(name) for name, _ in SPECIALS] + [MASK] * masks
    library.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    if begins:
        first = special("bos")
        library.post_processor = processors.TemplateProcessing(
            single=f"{first} $A", pair=f"{first} $A {first} $B", special_tokens=[(first, BOS)]
        )
    config: dict[str, Any] = {f"{name}_token": special(name) for name, _ in SPECIALS}
    config |= {"mask_token": MASK} if masks else {}
    config |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": length, "padding_side": "left"}
    config |= {"clean_up_tokenization_spaces": False, "split_special_tokens": False}
    assert library.token_to_id(special("unk")) == UNK
    assert library.token_to_id(special("pad")) == PAD
    return {"tokenizer.json": library.to_str(pretty=True) + "\n", "tokenizer_config.json": json.dumps(config, indent=2)}
