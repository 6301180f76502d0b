"""Words of every script, by hand; and what cuts text for BLEU, by its script."""

# ruff: noqa: RUF001

import pytest

from aigc_cli.metrics import words as module
from aigc_cli.metrics.words import Cut, script_of, spoken, tokenizer_for, words


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Don't stop_me, NAÏVE!", ["don", "'", "t", "stop_me", ",", "naïve", "!"]),
        ("нельзя cafe\u0301s", ["нельзя", "cafe\u0301s"]),
        ("हिन्दी में", ["हिन्दी", "में"]),  # vowel signs and a virama are marks, which \w leaves out
        ("الكِتاب جديد", ["الكِتاب", "جديد"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),  # a joiner stands within the word
        ("我喜欢GPT模型。", ["我", "喜", "欢", "gpt", "模", "型", "。"]),
        ("カードです", ["カ", "ー", "ド", "で", "す"]),
        ("ที่นี่", ["ที่", "นี่"]),
        ("한국어 책", ["한국어", "책"]),
    ],
)
def test_words_by_hand(text: str, wanted: list[str]) -> None:
    assert words(text) == wanted


@pytest.mark.parametrize("text", ["ພາສາລາວ", "ភាសាខ្មែរ", "မြန်မာစာ"])
def test_kin_without_spaces_are_cut_too_and_nothing_is_lost(text: str) -> None:
    assert len(words(text)) > 2
    assert "".join(words(text)) == text


@pytest.mark.parametrize(("cut", "wanted"), [("char", ["a", "b", "我", "们"]), ("space", ["ab", "我们"])])
def test_a_person_may_say_how_text_is_cut(cut: Cut, wanted: list[str]) -> None:
    assert words("AB 我们", cut) == wanted


def test_words_that_are_spoken_have_a_letter_or_a_digit() -> None:
    assert spoken("The cat_sat, on 3 mats -- हाँ 我。") == ["the", "cat", "sat", "on", "3", "mats", "हाँ", "我"]


SCRIPTS = {
    "": "An English text, with 我 in it", "Han": "我喜欢吃苹果 tea", "Korean": "한국어 문장",
    "Japanese": "日本語の文章です",    "Thai": "ภาษาไทย", "Lao": "ພາສາລາວ", "Khmer": "ភាសាខ្មែរ", "Myanmar": "မြန်မာစာ",
}  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_script_of_a_text_decides_what_cuts_it_for_bleu(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = [SCRIPTS[script]]
    assert script_of(text) == script
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    name, why = tokenizer_for(text, "auto")
    assert name == {"": "13a", "Han": "zh"}.get(script, "char")
    assert (script in why) is True
    monkeypatch.setattr(module, "find_spec", lambda name: name)
    installed = {"": "13a", "Han": "zh", "Japanese": "ja-mecab", "Korean": "ko-mecab"}
    assert tokenizer_for(text, "auto")[0] == installed.get(script, "char")
    assert tokenizer_for(text, "intl") == ("intl", "")
