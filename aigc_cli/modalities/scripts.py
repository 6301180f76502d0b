"""The scripts that text is written in, by the names that the Unicode standard gives to letters."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping

#: Scripts by the first word of a letter's name, where it is another.
_SCRIPTS = {
    **dict.fromkeys(("CJK", "IDEOGRAPHIC"), "Han"), "MICRO": "Greek",
    **dict.fromkeys(("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HALFWIDTH"), "Kana"),
    **dict.fromkeys(("FULLWIDTH", "FEMININE", "MASCULINE", "MODIFIER", "MATHEMATICAL"), "Latin"),
}  # fmt: skip
_KANA = 0.05  # the share of kana from which on text in Han and kana is Japanese


def letters_by_script(counts: Mapping[str, int]) -> Counter[str]:
    """How many letters of each script there are, such as ``Latin``, ``Han`` or ``Hangul``, by counts of characters."""
    found: Counter[str] = Counter()
    for letter, count in counts.items():
        if unicodedata.category(letter)[0] == "L":
            word = unicodedata.name(letter, "UNKNOWN").split()[0]
            found[_SCRIPTS.get(word, word.capitalize())] += count
    return found


def main_script(counts: Mapping[str, int]) -> tuple[str, float]:
    """The script of most letters, by counts of characters, and its share of them; Han and kana together are
    ``Japanese`` where they are mixed as there; ``""`` where there are no letters."""
    found = letters_by_script(counts)
    total = found.total()
    both = found["Han"] + found["Kana"]
    if found["Kana"] > _KANA * both:
        found.update(Japanese=both, Han=-found["Han"], Kana=-found["Kana"])
    name, most = found.most_common(1)[0] if total else ("", 0)
    return name, most / max(total, 1)
