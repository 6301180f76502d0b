"""The words on the command line: which are the command, which are flags, and which are key=value."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from aigc_cli.errors import ConfigError, nearest, suggest

#: Each command, with what it does in a few words.
COMMANDS = {
    "train": "train a model, or go on with a run",
    "sample": "draw samples from a run",
    "eval": "measure how good a run's samples are",
    "embed": "turn lines of text into vectors",
    "ls": "list models, data, metrics or runs",
    "completion": "print the completion script for bash",
}
#: Each flag under its full name, with how it is shown in a list.
FLAGS = {
    "--multirun": "-m, --multirun",
    "--cfg": "--cfg job|all|hydra",
    "--resume": "--resume [RUN]",
    "--metric": "--metric NAME[,NAME]",
    "--json": "--json",
    "--debug": "--debug",
    "--plugin": "--plugin MODULE",
    "--help": "-h, --help",
    "--version": "--version",
}
SHORT = {"-m": "--multirun", "-h": "--help", "-c": "--cfg", "-V": "--version"}
CFG_KINDS = ("job", "all", "hydra")
#: The flags that only some commands have.
FLAG_COMMANDS = {"--multirun": ("train",), "--resume": ("train",), "--metric": ("eval",)}

#: The words that may follow a command alone, each short for ``task=WORD``.
TASKS = {"eval": ("compare", "stats")}

#: The key that a word alone is the value of, for the commands that have one.
BARE = {"embed": "input"}

_KEY = re.compile(r"(\+{0,2}|~)[A-Za-z_$][\w.$-]*(/[\w-]+)*(@[\w.:$-]*)?")


@dataclass
class Words:
    """A command line taken apart."""

    command: str | None = None
    overrides: list[str] = field(default_factory=list)  # key=value words, in order
    names: list[str] = field(default_factory=list)  # other words, such as `models` in `aigc ls models`
    multirun: bool = False
    cfg: str | None = None
    resume: str | None = None
    metrics: list[str] = field(default_factory=list)
    plugins: list[str] = field(default_factory=list)
    json: bool = False
    debug: bool = False
    help: bool = False
    version: bool = False


def split_key(word: str) -> tuple[str, str, str | None]:
    """A word's sign (``""``, ``"+"``, ``"++"`` or ``"~"``), key and value; the value is None where there is no ``=``.

    Raises:
        ConfigError: the word does not begin with a key.
    """
    head, equals, value = word.partition("=")
    match = _KEY.fullmatch(head)
    if match is None or not (equals or match[1] == "~"):
        raise ConfigError(f"{word!r} is not a key=value word", "write for example optimizer.lr=1e-4, without spaces")
    return match[1], head[len(match[1]) :], value if equals else None


def is_key_value(word: str) -> bool:
    """Whether a word sets, adds or removes a key."""
    match = _KEY.fullmatch(word.partition("=")[0])
    return match is not None and ("=" in word or match[1] == "~")


def parse(argv: list[str]) -> Words:
    """Takes a command line apart; flags and words may come in any order.

    Raises:
        ConfigError: an unknown command or flag, a flag without its value, a word that is none of all this.
    """
    words = Words()
    strays: list[tuple[str, str | None]] = []  # with the word that follows each
    queue = iter_ahead(argv)
    for word, following in queue:
        if word.startswith("-") and len(word) > 1:
            if _flag(words, word, following):
                next(queue)
        elif is_key_value(word):
            words.overrides.append(word)
        elif words.command is None:
            words.command = _command(word)
        else:
            strays.append((word, following))
    _place_strays(words, strays)
    _check_flags(words)
    return words


def iter_ahead(argv: list[str]) -> Iterator[tuple[str, str | None]]:
    """Each word with the one that follows it."""
    return zip(argv, [*argv[1:], None], strict=False)


def _command(word: str) -> str:
    if word == "help":
        return word
    if word not in COMMANDS:
        raise ConfigError(f"there is no command {word!r}", suggest(word, COMMANDS))
    return word


def _flag(words: Words, word: str, following: str | None) -> bool:
    """Takes one flag in; says whether it used up the word that follows."""
    name, equals, value = word.partition("=")
    name = SHORT.get(name, name)
    if name not in FLAGS:
        raise _unknown_flag(name, value if equals else following)
    if name not in _VALUED:
        if equals:
            raise ConfigError(f"{name} takes no value, got {value!r}", f"write {name} alone")
        setattr(words, name.removeprefix("--"), True)
        return False
    if equals:
        _VALUED[name](words, value)
        return False
    if following is not None and _may_follow(words, name, following):
        _VALUED[name](words, following)
        return True
    if name not in _OPTIONAL:
        raise ConfigError(f"{name} needs a value", f"write {FLAGS[name]}")
    _VALUED[name](words, _OPTIONAL[name])
    return False


def _may_follow(words: Words, name: str, following: str) -> bool:
    if following.startswith("-"):
        return False
    if name == "--resume":
        return not is_key_value(following) and not (words.command is None and following in COMMANDS)
    if name == "--cfg":
        return not is_key_value(following) and following not in COMMANDS
    return True


def _set_cfg(words: Words, value: str) -> None:
    if value not in CFG_KINDS:
        raise ConfigError(f"--cfg {value}: there is no such part", suggest(value, CFG_KINDS))
    words.cfg = value


def _set_resume(words: Words, value: str) -> None:
    words.resume = value or "latest"


def _add_metrics(words: Words, value: str) -> None:
    found = [name.strip() for name in value.strip("[]").split(",") if name.strip()]
    if not found:
        raise ConfigError("--metric names no metric", "write for example --metric fd; `aigc ls metrics` lists them")
    words.metrics += found


def _add_plugin(words: Words, value: str) -> None:
    words.plugins.append(value)


_VALUED = {"--cfg": _set_cfg, "--resume": _set_resume, "--metric": _add_metrics, "--plugin": _add_plugin}
_OPTIONAL = {"--cfg": "job", "--resume": "latest"}


def _unknown_flag(name: str, value: str | None) -> ConfigError:
    from aigc_cli.config.folders import top_level_keys  # reads YAML, so only now

    close = nearest(name, [*FLAGS, *SHORT])
    key = name.lstrip("-")
    known = {known for command in ("train", "sample", "eval", "embed") for known in top_level_keys(command)}
    if not is_key_value(f"{key}=") or (close and key.split(".")[0] not in known):
        hint = f"did you mean {' or '.join(close)}?" if close else f"choose from: {', '.join(FLAGS.values())}"
    else:
        value = value if value and not value.startswith("-") and not is_key_value(value) else "VALUE"
        hint = f"keys take no dashes: write {key}={value}"
    return ConfigError(f"there is no flag {name}", hint)


def _place_strays(words: Words, strays: list[tuple[str, str | None]]) -> None:
    if words.command in ("ls", "completion", "help", None):
        words.names = [word for word, _ in strays]
        return
    tasks = TASKS.get(str(words.command), ())
    if strays and strays[0][0] in tasks:
        words.overrides.insert(0, f"task={strays.pop(0)[0]}")
    if strays and words.command in BARE:
        words.overrides.insert(0, f"{BARE[words.command]}={strays.pop(0)[0]}")
    for word, following in strays:
        if nearest(word, tasks):
            raise ConfigError(f"aigc {words.command}: there is no {word!r}", suggest(word, tasks))
        hint = "write for example optimizer.lr=1e-4, without spaces around the ="
        if is_key_value(f"{word}=") and following and not following.startswith("=") and not is_key_value(following):
            hint = f"write {word}={following}"
        raise ConfigError(f"{word!r} is not a key=value word", hint)


def _check_flags(words: Words) -> None:
    given = {"--multirun": words.multirun, "--resume": words.resume is not None, "--metric": bool(words.metrics)}
    for flag, commands in FLAG_COMMANDS.items():
        if given[flag] and words.command is not None and words.command not in commands and not words.help:
            raise ConfigError(
                f"aigc {words.command} has no {flag}", f"{flag} belongs to: aigc {', aigc '.join(commands)}"
            )
    if words.multirun and words.resume is not None:
        raise ConfigError(
            "--multirun and --resume do not go together", "run the same sweep again: jobs that are complete are skipped"
        )
