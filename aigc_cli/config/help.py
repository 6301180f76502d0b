"""What ``--help`` prints: made from the comments of the YAML files, which say what each key means."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from aigc_cli.config.folders import Key, command_keys, header, keys_of, options, packaged_configs
from aigc_cli.config.words import BARE, COMMANDS, FLAGS, TASKS
from aigc_cli.errors import no_such

_WIDTH, _COLUMN = 100, 28
_OVERVIEW = (
    "aigc trains, samples and evaluates generative models from configuration.",
    "\nusage: aigc COMMAND [key=value ...] [flags]",
    "\ncommands",
)
_FIRST = (
    ("aigc train", "a GAN on built-in digits; a minute and a half on a CPU"),
    ("aigc sample", "pictures of its digits"),
    ("aigc eval", "how good they are"),
)
#: The commands without a YAML file of their own.
_PLAIN = {
    "ls": """\
usage: aigc ls [models|data|metrics|runs] [--json]

  models, data, metrics       the names to use after model=, data= and metric=, yours among them
  runs                        every run in outputs/: its status, step, age and last metrics

examples
  aigc ls models
  aigc ls runs
  aigc ls data --json""",
    "completion": """\
usage: aigc completion bash

It completes commands, flags, keys, the names after model= and the like, and runs.

examples
  eval "$(aigc completion bash)"
  aigc completion bash >> ~/.bashrc
  aigc completion bash > ~/.local/share/bash-completion/completions/aigc""",
}


def help_text(command: str | None, chosen: Iterable[tuple[str, str]] = ()) -> str:
    """The help of a command, with the keys of the options `chosen` beside it, such as ``("model", "vae")``; or of the
    whole program.

    Raises:
        ConfigError: there is no such command, or option.
    """
    if command is None:
        flags = _table((flag.shown, flag.what) for flag in FLAGS.values() if flag.commands == tuple(COMMANDS))
        return "\n".join([*_OVERVIEW, *_table(COMMANDS.items()), "\nflags", *flags, "\nstart here", *_table(_FIRST)])
    if command not in COMMANDS:
        raise no_such("command", command, COMMANDS)
    title = f"aigc {command}: {COMMANDS[command]}\n"
    return "\n".join([title, _PLAIN[command]] if command in _PLAIN else [title, *_of_keys(command, chosen)])


def _of_keys(command: str, chosen: Iterable[tuple[str, str]]) -> list[str]:
    """Usage, keys, flags and examples of a command that is configured by a YAML file."""
    alone = "".join(f" [{'|'.join(tasks)}]" for tasks in [TASKS.get(command)] if tasks)
    alone += f" [{BARE[command].upper()}]" if command in BARE else ""
    lines = [f"usage: aigc {command}{alone} [key=value ...] [flags]", "\nkeys", *_keys(command_keys(command).values())]
    for group, name in dict(chosen, **({"trainer": "default"} if command == "train" else {})).items():
        path = options(group).get(name)
        if path is None:
            raise no_such(group, name, options(group))
        own = (key._replace(name=f"{group}.{key.name}") for key in keys_of(path).values() if key.name != "name")
        described = textwrap.fill(f"{group}={name}: {next(iter(header(path)), '')}", _WIDTH)
        lines += [f"\n{described}", *_keys(own)]
    if command == "train":
        lines.append("\nFor the keys of another part, name it: aigc train model=vae data=cifar10 --help")
    flags = [(flag.shown, flag.what) for flag in FLAGS.values() if command in flag.commands]
    examples = [line for line in header(packaged_configs() / f"{command}.yaml") if line.startswith("aigc ")]
    return [*lines, "\nflags", *_table(flags), "\nexamples", *(f"  {line}" for line in examples)]


def _keys(keys: Iterable[Key]) -> list[str]:
    return _table((_shown(key), key.comment) for key in keys if key.value or key.comment)


def _shown(key: Key) -> str:
    """A key as it is typed, with its default; for one that is null, what kind of text it takes."""
    name = key.name.removeprefix("defaults.").removeprefix("controls.")
    if not key.value or "${" in key.value:
        return name
    return f"{name}={key.kind if key.value == 'null' else key.value}"


def _table(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Two columns, the second one wrapped; a first one that is too wide has a line to itself."""
    lines = []
    for left, right in rows:
        first, *others = textwrap.wrap(right, _WIDTH - _COLUMN - 2) or [""]
        wide = len(left) >= _COLUMN
        lines += [f"  {left}"] if wide else [f"  {left:<{_COLUMN}}{first}".rstrip()]
        lines += [f"  {'':<{_COLUMN}}{line}" for line in ([first, *others] if wide else others)]
    return lines
