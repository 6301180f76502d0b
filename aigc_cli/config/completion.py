"""Completion for bash: commands, flags, keys, the options of groups, and runs.

The shell asks the program itself (``aigc completion query`` with the line in ``COMP_LINE``), so that the answers are
those of the configuration as it is, the user's own files among them.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

from aigc_cli.config.folders import all_keys, command_keys, groups, options
from aigc_cli.config.words import CFG_KINDS, COMMANDS, FLAGS, LISTS, NAMING, TASKS
from aigc_cli.errors import AigcError

#: What ``eval "$(aigc completion bash)"`` evaluates, by the name of the shell.
SCRIPTS = {
    "bash": """\
_aigc_complete() {
    local line="${COMP_LINE:0:COMP_POINT}" IFS=$'\\n' word
    word="${line##*[[:space:]]}"
    COMPREPLY=($(COMP_LINE="$line" "${COMP_WORDS[0]}" completion query 2>/dev/null))
    # bash breaks words at = and : and replaces only what follows the last of them
    local done="${word%"${word##*[=:]}"}"
    COMPREPLY=("${COMPREPLY[@]#"$done"}")
}
complete -o nospace -o bashdefault -o default -F _aigc_complete aigc
"""
}


def answer(line: str) -> list[str]:
    """The words that may stand where a command line up to the cursor ends.

    A word that is whole ends with a space; one that goes on (``optimizer.``, ``seed=``) does not.
    """
    before, word = _split(line)
    try:
        found = _candidates(before, word)
    except AigcError:
        return []  # a broken configuration is no reason to print errors between a user's keystrokes
    return sorted({candidate for candidate in found if candidate.startswith(word)})


def _split(line: str) -> tuple[list[str], str]:
    """The words before the last, without the program's name, and the last one, which may be empty."""
    try:
        words = shlex.split(line)
    except ValueError:  # an open quote
        words = line.split()
    if not words:
        return [], ""
    return (words[1:], "") if line[-1:].isspace() else (words[1:-1], words[-1])


def _candidates(before: list[str], word: str) -> Iterable[str]:
    command = next((other for other in before if other in COMMANDS), None)
    previous = before[-1] if before else ""
    if previous == "--cfg":
        return _whole(CFG_KINDS)
    if previous == "--metric":
        return _listed("", word, options("metric"))
    if previous == "--resume" and not word.startswith("-") and "=" not in word:
        return [*_whole(_runs()), *(_keys("train", before, word) if word else [])]
    if word.startswith("-"):
        return _whole(name for name, flag in FLAGS.items() if command is None or command in flag.commands)
    if command is None:
        return _whole(COMMANDS)
    if command in NAMING and "=" not in word:
        return _whole(_runs())
    if command == "ls":
        return _whole(LISTS)
    if command == "completion":
        return _whole(SCRIPTS)
    key, equals, value = word.partition("=")
    if equals:
        return _values(command, key, value)
    keys = _keys(command, before, word)
    if "--help" in before:
        return [f"{key[:-1]} " if key.endswith("=") else key for key in keys]
    return [*_whole(TASKS.get(command, ()) if previous == command else ()), *keys]


def _values(command: str, key: str, value: str) -> Iterable[str]:
    if key in groups(command):
        return _listed(f"{key}=", value, options(key))
    if command == "eval" and key == "metric":
        return _listed("metric=", value, options("metric"))
    if key == "run":
        return _whole(f"run={name}" for name in _runs())
    if key.startswith("hydra/"):
        from aigc_cli.config.loader import config_loader  # Hydra takes a while

        return _whole(f"{key}={name}" for name in config_loader().get_group_options(key))
    return []  # bash goes on with its own completion of files


def _listed(prefix: str, value: str, names: Iterable[str]) -> list[str]:
    """The names for the last place of a list such as ``gan,va``."""
    head = value[: value.rfind(",") + 1]
    return _whole(f"{prefix}{head}{name}" for name in names)


def _keys(command: str, before: list[str], word: str) -> list[str]:
    """The keys one level below what is typed so far, as ``key=`` or ``section.``; of the parts that words chose."""
    names, section = all_keys(command, before), word[: word.rfind(".") + 1]
    below = [name.removeprefix(section) for name in names if name.startswith(section) and name != section[:-1]]
    parts = {name.partition(".")[0] for name in below if "." in name}
    return [f"{section}{part}." for part in parts] + [f"{section}{name}=" for name in below if "." not in name]


def _runs() -> list[str]:
    """The runs' names, read from the folders alone."""
    root = Path(command_keys("train")["outputs"].value)
    found = [path.parent for path in root.glob("*/*/config.yaml") if path.parent.parent.name != "latest"]
    return ["latest", *(f"{path.parent.name}/{path.name}" for path in sorted(found))]


def _whole(words: Iterable[str]) -> list[str]:
    return [f"{word} " for word in words]
