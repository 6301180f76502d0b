"""Which script a text is written in, by its letters."""

from collections import Counter

import pytest

from aigc_cli.modalities.scripts import letters_by_script, main_script


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("An English text, with 我 in it", "Latin"),
        ("Нельзя, OK?", "Cyrillic"),
        ("我喜欢吃苹果 tea", "Han"),
        ("日本語の文章です", "Japanese"),
        ("カタカナ", "Japanese"),
        ("한국어 문장", "Hangul"),
        ("ภาษาไทย", "Thai"),
        ("12, 34!", ""),
    ],
)
def test_the_script_of_most_letters(text: str, script: str) -> None:
    name, share = main_script(Counter(text))
    assert name == script
    assert 0.5 < share <= 1 if script else share == 0


def test_a_little_kana_among_much_han_is_no_japanese() -> None:
    assert main_script({"漢": 96, "の": 4}) == ("Han", 0.96)
    assert main_script({"漢": 94, "の": 6}) == ("Japanese", 1.0)


def test_marks_and_digits_are_no_letters() -> None:
    assert letters_by_script(Counter("nai\u0308ve µ 7")) == {"Latin": 5, "Greek": 1}
