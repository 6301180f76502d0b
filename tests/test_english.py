"""What people read is written as one would say it to a colleague: these phrases were not."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import aigc_cli

PACKAGE = Path(aigc_cli.__file__).parent
ROOT = Path(__file__).resolve().parents[1]
#: Phrases to avoid, each with what to write in its place.
PHRASES = {
    r"changes? nothing": "has no effect",
    r"(?<!there )is no (?!longer|more)": "is not a",
    r"\b(is|are) none\b": "there is no, does not have",
    r"\bwhatever\b": "any, what",
    r"\b(tells?|told) of\b": "reports, lists",
    r"\bof (its|their) own\b": "its own",
    r"\bfigures?\b": "metric, score",
    r"\bfloors?\b": "baseline",
    r"\bmends?\b": "hint",
    r"\b(go|goes|going) on\b": "resume, continue",
    r"\bso it is with\b": "(and 2 more)",
    r"\bheld against\b": "compared with",
    r"\blies? (now|at)\b": "is now, is at",
    r"\bkey=value words?\b": "key=value argument",
}


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """The strings of a module that are sentences: no documentation, and nothing without a space in it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) and id(node) not in alone else None
        if isinstance(text, str) and " " in text.strip():
            yield node.lineno, text


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """What people read of a YAML file, which are its comments, and of a page, which is all but its code."""
    fenced = False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if path.suffix == ".yaml":
            yield number, line.partition("#")[2]
        elif line.startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield number, re.sub(r"`[^`]*`", "`", line)


def test_plain_english() -> None:
    files = [*PACKAGE.rglob("*.py"), *(ROOT / "configs").rglob("*.yaml"), *(ROOT / "docs").glob("*.md")]
    found = []
    for path in sorted([*files, ROOT / "README.md"]):
        for number, text in strings(path) if path.suffix == ".py" else lines(path):
            for phrase, better in PHRASES.items():
                if match := re.search(phrase, text, re.IGNORECASE):
                    found.append(f"{path.relative_to(ROOT)}:{number}: {match[0]!r}, better {better}: {text.strip()}")
    assert not found, "\n".join(found)
