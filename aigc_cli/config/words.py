"""The words on the command line: which are the command, which are flags, and which are key=value."""

from __future__ import annotations

import re
from argparse import ArgumentParser
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import NoReturn

from aigc_cli.errors import ConfigError, namesake, nearest, suggest
from aigc_cli.registry import own_data

#: Each command, with what it does in a few words.
COMMANDS = {
    "data": "look at data before training, or write a cleaned copy",
    "train": "train a model, or resume a run",
    "sample": "draw samples from a run",
    "eval": "measure how good a run's samples are",
    "embed": "turn lines of text into vectors",
    "serve": "serve runs over HTTP, with a page",
    "export": "write a trained model for other programs",
    "compare": "what differs between runs, and what came of it",
    "report": "one page on runs and sweeps that can be kept and passed on",
    "verify": "what files claim about where they come from, and what of it is proven",
    "sign": "make a key of your own that signs what is sampled",
    "runs": "note down what you think of a run, or free the disk of old checkpoints",
    "ls": "list models, data, metrics, runs and what else there is to choose",
    "completion": "print the completion script for bash",
}
#: Those that are configured by a YAML file, and so by key=value words.
COMPOSED = ("data", "train", "sample", "eval", "embed", "export", "serve")
#: Those that are told by words alone which runs or files they are about.
NAMING = ("runs", "compare", "report", "verify", "sign")
#: What ``ls`` lists, with what each list holds; alone it prints the first four.
LISTS = {
    "models": "the names to use after model=, yours among them",
    "data": "the names to use after data=",
    "metrics": "the names to use after metric= or --metric",
    "runs": "every run of outputs/, and those of run_dir=: status, step, age, disk, what tells it apart, last metrics",
    "optimizers": "the names to use after optimizer=",
    "networks": "the choices of model.network=, by model",
    "losses": "the choices of model.loss= and of what else a model minimises, by model",
    "schedules": "the choices of optimizer.schedule=",
    "experiments": "the names to use after experiment=",
    "recipes": "the settings that apply by themselves, and when",
}
CFG_KINDS = ("job", "all", "hydra")
#: The words that may follow a command alone, each short for ``task=WORD``.
TASKS = {"eval": ("compare", "stats"), "data": ("show", "prepare")}
#: The key that a word alone is the value of, for the commands that have one.
BARE = {"embed": "input"}


@dataclass(frozen=True)
class Flag:
    """A flag of the command line."""

    shown: str
    what: str
    short: str = ""
    commands: tuple[str, ...] = tuple(COMMANDS)  # those that have it


FLAGS = {
    "--resume": Flag("--resume [RUN]", "resume a run: the newest, or the one named", commands=("train",)),
    "--multirun": Flag("-m, --multirun", "sweep over all comma-separated values", "-m", ("train",)),
    "--dry-run": Flag("--dry-run", "say what training takes, by a few steps, and keep nothing", commands=("train",)),
    "--metric": Flag(
        "--metric NAME[,NAME]",
        "what to measure: the same as metric=, or of each run of a sweep",
        commands=("train", "eval"),
    ),
    "--json": Flag("--json", "print one JSON object and nothing else on stdout"),
    "--cfg": Flag("--cfg job|all|hydra", "print the configuration and stop", "-c"),
    "--plugin": Flag("--plugin MODULE[,MODULE]", "import a module with models or data of your own"),
    "--debug": Flag("--debug", "show tracebacks"),
    "--help": Flag("-h, --help [KEY ...]", "explain a command and its keys, or a key and its choices", "-h"),
    "--version": Flag("--version", "print the version", "-V"),
}
#: The words of other programs for what ``train`` calls otherwise, each with the hint of how.
ELSEWHERE = {
    **dict.fromkeys(("epoch", "epochs", "max_epochs", "n_epochs", "num_epochs", "num_train_epochs"),
                    "training is counted in steps, not in epochs: write trainer.steps="),
    **dict.fromkeys(("learning_rate", "base_lr", "step_size"), "write optimizer.lr="),
    **dict.fromkeys(("step", "iters", "iterations", "max_steps", "n_steps", "num_steps", "total_steps", "train_steps"),
                    "write trainer.steps="),
    **dict.fromkeys(("batch", "bs"), "write trainer.batch_size="),
    **dict.fromkeys(("cuda", "gpu"), "write trainer.device=cuda"),
    **dict.fromkeys(("gpus", "n_gpus", "num_gpus"), "write trainer.devices="),
    "name": "write model=, data= or optimizer=, which choose one by its name",
}  # fmt: skip
_APART = (
    ("multirun", "resume", "run the same sweep again: it skips the jobs that are complete"),
    ("cfg", "multirun", "leave one of them out"),
    ("dry_run", "multirun", "plan one job: leave -m out, and give each key one value"),
    ("dry_run", "resume", "a run that resumes says what is left after its first seconds"),
    ("dry_run", "cfg", "leave one of them out"),
    ("cfg", "resume", "read the run's config.yaml"),
)
_KEY = re.compile(r"(\+{0,2}|~)[A-Za-z_$][\w.$-]*(/[\w-]+)*(@[\w.:$-]*)?")


@dataclass
class Words:
    """A command line taken apart."""

    command: str | None = None
    overrides: list[str] = field(default_factory=list)  # key=value words, in order
    names: list[str] = field(default_factory=list)  # other words, such as `models` in `aigc ls models`
    multirun: bool = False
    dry_run: bool = False
    cfg: str | None = None
    resume: str | None = None
    metric: list[str] = field(default_factory=list)
    plugin: list[str] = field(default_factory=list)
    json: bool = False
    debug: bool = False
    help: bool = False
    version: bool = False

    def several(self) -> dict[str, list[str]]:
        """The keys that are given more than one value, with those in their order."""
        found: dict[str, list[str]] = {}
        for _, key, value in map(split_key, self.overrides):
            found.setdefault(key, []).extend([] if value is None else [value])
        return {key: values for key, values in found.items() if len(set(values)) > 1}


def split_key(word: str) -> tuple[str, str, str | None]:
    """A word's sign (``""``, ``"+"``, ``"++"`` or ``"~"``), key and value; the value is None where there is no ``=``. A
    :class:`ConfigError` says that the word does not begin with a key."""
    head, equals, value = word.partition("=")
    match = _KEY.fullmatch(head)
    if match is None or not (equals or match[1] == "~"):
        hint = "write for example optimizer.lr=1e-4, without spaces"
        raise ConfigError(f"{word!r} is not a key=value argument", hint)
    return match[1], head[len(match[1]) :], value if equals else None


def asked_of(words: Iterable[str], known: Collection[str], command: str) -> dict[str, str]:
    """What key=value words say, by key, of a command that takes the keys `known`; a :class:`ConfigError` where it has
    no such key."""
    asked = {key: value or "" for _, key, value in map(split_key, words)}
    for key in asked:
        if key not in known:
            raise ConfigError(f"aigc {command} has no key {key}", suggest(key, known))
    return asked


def is_key_value(word: str) -> bool:
    """Whether a word sets, adds or removes a key."""
    match = _KEY.fullmatch(word.partition("=")[0])
    return match is not None and ("=" in word or match[1] == "~")


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """What argparse complains of, with the usage of the flag that it names."""
        shown = next((flag.shown for name, flag in FLAGS.items() if name in message), "")
        raise ConfigError(message.removeprefix("argument "), f"write {shown}" if shown else "see aigc --help")


def parse(argv: list[str]) -> Words:
    """Takes a command line apart; flags and words may come in any order.

    Raises:
        ConfigError: an unknown command or flag, a flag without its value, a word that is none of all this.
    """
    for word in argv:
        if not word.isprintable():
            _refuse_other_bytes(word)
    command = next((word for word in argv if word in COMMANDS or word == "help"), None)
    words = Words(command, [word for word in argv if is_key_value(word)])
    rest = [word for word in argv if not is_key_value(word)]
    if command is not None:
        rest.remove(command)
    _, others = _parser().parse_known_args(rest, namespace=words)
    unknown = next((word for word in others if word.startswith("-") and len(word) > 1), None)
    if unknown is not None:
        raise _unknown_flag(command, unknown, next(iter(argv[argv.index(unknown) + 1 :]), None))
    _place(words, others, argv)
    lengths = {split_key(word)[1]: word for word in words.overrides if not word.endswith("=null")}
    if command == "train" and {"trainer.steps", "trainer.minutes"} <= lengths.keys():
        both = f"{lengths['trainer.steps']} and {lengths['trainer.minutes']}"
        raise ConfigError(f"{both} are two lengths for one run", "leave one out; minutes train in place of steps")
    for flag in ("--multirun", "--resume", "--dry-run", "--metric"):
        commands = FLAGS[flag].commands
        given = getattr(words, flag.strip("-").replace("-", "_"))
        if given and command is not None and command not in commands and not words.help:
            raise ConfigError(f"aigc {command} has no {flag}", f"{flag} is a flag of aigc {' and '.join(commands)}")
    if words.metric and command == "train" and not words.multirun and not words.help:
        hint = "add -m to rank the runs of a sweep by it, or measure a run with aigc eval --metric"
        raise ConfigError("--metric measures no single training", hint)
    for one, other, hint in _APART:
        if getattr(words, one) and getattr(words, other):
            raise ConfigError(f"--{one} and --{other} cannot be combined".replace("_", "-"), hint)
    return words


def _parser() -> ArgumentParser:
    """The flags alone: what else there is, keys and values above all, argparse does not get to see."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    for name in ("--multirun", "--dry-run", "--json", "--debug", "--help", "--version"):
        parser.add_argument(name, *filter(None, [FLAGS[name].short]), action="store_true")
    parser.add_argument("--cfg", "-c", nargs="?", const="job", type=_kind)
    parser.add_argument("--resume", nargs="?", const="latest", type=lambda run: run or "latest")
    for name in ("--metric", "--plugin"):
        parser.add_argument(name, action="extend", type=partial(_names, name))
    return parser


def _names(flag: str, value: str) -> list[str]:
    names = [name.strip() for name in value.strip("[]").split(",") if name.strip()]
    if not names:
        example = "--metric fd; `aigc ls metrics` lists them" if flag == "--metric" else "--plugin my_models"
        raise ConfigError(f"{flag} names no {flag.strip('-')}", f"write for example {example}")
    return names


def _kind(value: str) -> str:
    if value not in CFG_KINDS:
        raise ConfigError(f"--cfg does not know {value!r}", suggest(value, CFG_KINDS))
    return value


def _unknown_flag(command: str | None, word: str, following: str | None) -> ConfigError:
    from aigc_cli.config.folders import all_keys  # reads YAML, so only now

    name, equals, value = word.partition("=")
    value = value if equals else following or ""
    close = nearest(name, [*FLAGS, *(flag.short for flag in FLAGS.values() if flag.short)])
    key = name.lstrip("-")
    known = {known for other in COMPOSED if command in (other, None) for known in all_keys(other)}
    if key not in known:
        key = namesake(key.replace("-", "_"), known) or key.replace("-", "_")
    if command is None and key in COMMANDS:
        return ConfigError(f"there is no flag {name}", f"a command takes no dashes: write aigc {key}")
    if command in ("train", None) and key in ELSEWHERE:
        return ConfigError(f"there is no flag {name}", ELSEWHERE[key])
    if is_key_value(f"{key}=") and (key in known or not close):
        value = value if value and not value.startswith("-") and not is_key_value(value) else "VALUE"
        return ConfigError(f"there is no flag {name}", f"keys take no dashes: write {key}={value}")
    return ConfigError(f"there is no flag {name}", suggest(name, close or [flag.shown for flag in FLAGS.values()]))


def _refuse_other_bytes(word: str) -> None:
    """Refuses a word that is not UTF-8, or that Python did not take for it, since the locale is another."""
    content = word.encode(errors="surrogateescape")
    try:
        decoded = content.decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{content.decode(errors='backslashreplace')} is not text in UTF-8") from None
    if decoded != word:
        what = f"{decoded} is not ASCII, which is all that this locale has"
        raise ConfigError(what, "set LANG=C.UTF-8 or PYTHONUTF8=1")


def _place(words: Words, others: list[str], argv: list[str]) -> None:
    """Finds the place of each word that is neither a command, a flag nor a key=value word."""
    from aigc_cli.config.folders import chosen_options, command_keys, explained_keys, groups, options, values_of

    if words.command is None and others:
        raise ConfigError(f"there is no command {others[0]!r}", suggest(others[0], COMMANDS))
    if words.command in ("ls", "completion", "help", *NAMING, None):
        words.names = others
        return
    tasks = TASKS.get(words.command, ())
    if others and others[0] in tasks:
        words.overrides.insert(0, f"task={others.pop(0)}")
    if words.help:
        words.names = others
        return
    if others and words.command in BARE:
        words.overrides.insert(0, f"{BARE[words.command]}={others.pop(0)}")
    for word in others:
        if nearest(word, tasks):
            raise ConfigError(f"aigc {words.command}: there is no {word!r}", suggest(word, tasks))
        following = next(iter(argv[argv.index(word) + 1 :]), "=")
        hint = "write for example optimizer.lr=1e-4, without spaces around the ="
        chosen = [f"{group}={word}" for group in groups(words.command) if word in options(group)]
        if not chosen and words.command == "train":
            typed = [(key, value or "") for _, key, value in map(split_key, words.overrides)]
            own = explained_keys("train", chosen_options("train", typed)).values()
            chosen = [f"{key.name}={word}" for key in own if word in values_of(key)][:3]
            chosen = chosen or [
                f"{group}={near}" for group in groups("train") for near in nearest(word, options(group), 1)
            ]
        if words.command in ("data", "train") and (words_for_it := own_data(word)):
            hint = words_for_it
        elif chosen:
            hint = f"did you mean {' or '.join(chosen)}?"
        elif "run" in command_keys(words.command) and ("/" in word or word == "latest"):
            hint = f"write run={word}"
        elif is_key_value(f"{word}=") and not following.startswith("=") and not is_key_value(following):
            hint = f"write {word}={following}"
        raise ConfigError(f"{word!r} is not a key=value argument", hint)
