"""What ``--help`` prints: made from the comments of the YAML files, which say what each key means."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from aigc_cli.config.folders import (
    Key,
    all_keys,
    choices_of,
    chosen_options,
    command_keys,
    explained_keys,
    groups,
    header,
    keys_of,
    options,
    packaged_configs,
)
from aigc_cli.config.words import BARE, COMMANDS, FLAGS, LISTS, TASKS
from aigc_cli.errors import ConfigError, nearest, no_such

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
_MORE = (
    ("aigc train --help", "every key of a run, and of other parts that are named beside it"),
    ("aigc train --help KEY", "a key with its choices, such as model.loss, or a section, such as optimizer"),
    ("aigc ls", "models, data, metrics and runs"),
    ("aigc ls LIST", f"more: {', '.join([*LISTS][4:])}"),
    ("aigc train --cfg job", "every value of a run, each with its comment"),
)


def help_text(command: str | None, chosen: Iterable[tuple[str, str]] = (), topics: Sequence[str] = ()) -> str:
    """The help of a command, with the keys of the options `chosen` beside it, such as ``("model", "vae")``; or of the
    whole program; or of the keys, sections and groups among `topics` alone.

    Raises:
        ConfigError: there is no such command, option or key.
    """
    if command is None:
        flags = _table((flag.shown, flag.what) for flag in FLAGS.values() if flag.commands == tuple(COMMANDS))
        rest = ["\nflags", *flags, "\nstart here", *_table(_FIRST), "\nwhat can be set", *_table(_MORE)]
        return "\n".join([*_OVERVIEW, *_table(COMMANDS.items()), *rest])
    if command not in COMMANDS:
        raise no_such("command", command, COMMANDS)
    title = f"aigc {command}: {COMMANDS[command]}\n"
    if command in _PLAIN:
        return "\n".join([title, _PLAIN[command]])
    chosen = [*chosen]
    for group, name in chosen:
        if name not in options(group):
            raise no_such(group, name, options(group))
    if topics:
        return "\n\n".join("\n".join(_of_topic(command, topic, chosen)) for topic in topics)
    return "\n".join([title, *_of_keys(command, chosen)])


def _of_keys(command: str, chosen: Iterable[tuple[str, str]]) -> list[str]:
    """Usage, keys, flags and examples of a command that is configured by a YAML file."""
    alone = "".join(f" [{'|'.join(tasks)}]" for tasks in [TASKS.get(command)] if tasks)
    alone += f" [{BARE[command].upper()}]" if command in BARE else ""
    lines = [f"usage: aigc {command}{alone} [key=value ...] [flags]", "\nkeys", *_keys(command_keys(command).values())]
    for group, name in dict(chosen, **({"trainer": "default"} if command == "train" else {})).items():
        lines += _of_option(group, name)
    if command == "train":
        lines.append("\nFor the keys of another part, name it: aigc train model=vae data=cifar10 --help")
        lines.append("For one key with its choices, or a section: aigc train --help model.loss optimizer")
    flags = [(flag.shown, flag.what) for flag in FLAGS.values() if command in flag.commands]
    examples = [line for line in header(packaged_configs() / f"{command}.yaml") if line.startswith("aigc ")]
    return [*lines, "\nflags", *_table(flags), "\nexamples", *(f"  {line}" for line in examples)]


def _of_option(group: str, name: str) -> list[str]:
    path = options(group)[name]
    own = (key._replace(name=f"{group}.{key.name}") for key in keys_of(path).values() if key.name != "name")
    return [f"\n{textwrap.fill(f'{group}={name}: {_first(path)}', _WIDTH)}", *_keys(own)]


def _first(path: Path) -> str:
    return next(iter(header(path)), "")


def _of_topic(command: str, topic: str, chosen: Iterable[tuple[str, str]]) -> list[str]:
    """A key, a section, a group, or all keys that end or begin with `topic`; of the chosen options before others."""
    picked = chosen_options(command, chosen)
    known = explained_keys(command, picked)
    if topic in groups(command):
        rows = [(name, _first(path)) for name, path in options(topic).items()]
        lines = [*_described(known[topic], rows), *(row for name in picked[topic] for row in _of_option(topic, name))]
        own = [key for slot, key in known.items() if slot in command_keys(command) and key.name.startswith(f"{topic}.")]
        return [*lines, *(["\nof any", *_keys(own)] if own else [])]
    last = topic.rpartition(".")[2]
    for found in (
        [key for key in known.values() if f"{key.name}.".startswith(f"{topic}.")],
        [key for key in known.values() if key.name.rpartition(".")[2] == topic],
        [key for key in known.values() if key.name.startswith(topic)],
    ):
        if len(found) == 1:
            return _described(found[0])
        if found:
            return _keys(found)
    group, _, name = topic.partition(".")
    others = {option: keys_of(path) for option, path in options(group).items() if name in keys_of(path)}
    if name and others and group in groups(command):
        first = next(iter(others.values()))[name]._replace(name=topic)
        note = f"a key of {', '.join(f'{group}={option}' for option in others)}; not of {group}={picked[group][0]}"
        return [*_described(first), *textwrap.wrap(note, _WIDTH)]
    close = nearest(topic, all_keys(command)) or nearest(last, groups(command))
    hint = f"did you mean {' or '.join(close)}?" if close else f"`aigc {command} --help` lists the keys"
    raise ConfigError(f"aigc {command} has no key {topic}", hint)


def _described(key: Key, rows: Sequence[tuple[str, str]] = ()) -> list[str]:
    """A key with what its comment says, and its choices one a line: those that the comment lists, or `rows`."""
    listed, said = choices_of(key.comment)
    rows = rows or [*listed]
    marked = [(name, f"(default) {what}".strip() if name == key.value else what) for name, what in rows]
    about = textwrap.wrap(said, _WIDTH - 2, initial_indent="  ", subsequent_indent="  ")
    return [_shown(key), *about, *_table(marked)]


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
        lines += [f"  {'':<{_COLUMN}}{line}" for line in ([first, *others] if wide else others) if line]
    return lines


#: The commands without a YAML file of their own.
_PLAIN = {
    "ls": f"""\
usage: aigc ls [LIST ...] [--json]
       aigc ls runs [KEY=VALUE ...] [sort=KEY] [columns=KEY,KEY] [outputs=FOLDER]

{chr(10).join(_table(LISTS.items()))}

KEY is model, data, status, step, seconds, age, disk, tags, note, a metric such as val/nelbo, a
score such as fd, or a key of the configuration such as optimizer.lr. VALUE may be several
(gan,vae), a pattern (cifar*) or a bound ('<10').

examples
  aigc ls models
  aigc ls runs model=gan status=complete sort=fd columns=run,fd,optimizer.lr,disk
  aigc ls runs tags=best sort=-age --json""",
    "runs": """\
usage: aigc runs note [RUN] [text="..."] [tags=A,B] [--json]
       aigc runs prune [RUN ...] [KEY=VALUE ...] [keep=1] [yes=true]

note keeps a text and tags in the run, for aigc ls runs and reports; without either it prints what
is there. prune deletes checkpoints of runs that are not training, but for the newest ones (keep=)
and the best one, after it has listed them and asked. The filters are those of aigc ls runs; without
a run or a filter all runs are meant.

examples
  aigc runs note latest text="sharper with a smaller rate" tags=best,paper
  aigc runs prune model=gan status=complete
  aigc runs prune keep=2 yes=true""",
    "compare": """\
usage: aigc compare RUN RUN [RUN ...] [outputs=FOLDER] [--json]

The keys in which the runs differ, each value with where it came from (typed, a recipe, a default);
differences of data and environment; metrics at the last step that all have done; scores with their
spread, of evaluations under the same conditions alone; samples of the same seeds; and the cost.

examples
  aigc compare gan-digits/2026-11-30_08-00-00 latest
  aigc compare outputs/gan-digits/*
  aigc compare latest other --json""",
    "report": """\
usage: aigc report [RUN|SWEEP ...] [out=report.html] [outputs=FOLDER] [--json]

One file of HTML, at most 3 MB, that needs neither a network nor the runs: a summary in words,
warnings, curves, samples over the steps, grids and players, scores beside those of real items,
configuration, command, environment, sums, and how to reproduce it. Several runs are compared; of a
sweep, named by its folder, there are parallel coordinates and the best runs.

examples
  aigc report
  aigc report latest gan-digits/2026-11-30_08-00-00 out=comparison.html
  aigc report outputs/sweeps/2026-11-30_08-00-00 out=sweep.html""",
    "verify": """\
usage: aigc verify FILE|FOLDER [...] [run=RUN] [outputs=FOLDER] [data.root=FOLDER] [device=auto]
                   [watermark=KEY] [trust=FOLDER]

What each file claims (the labels in its metadata, or samples.json beside it), and what is proven:
the run whose weights it names draws the sample again, and pixels, sound or words are compared.
With watermark= the mark of that key is looked for; of text, run= says whose tokens it is made of.
A signature is checked; trust= names a root certificate, or the folder of aigc sign init, to go by.
proven: equal. altered: not equal, or changed since it was signed (exit 3). signed: not changed
since. marked: the mark of the key is there. claimed: labelled, and the weights are not here.
unknown: none of these, which does not say that a person made it.

examples
  aigc verify picture.png
  aigc verify outputs/latest/generated/step-5000-seed-0
  aigc verify clip.wav run=gan-tones/2026-11-30_08-00-00 --json
  aigc verify found.txt run=latest watermark=mark.key""",
    "sign": """\
usage: aigc sign init [out=~/.config/aigc/signing] [name=NAME]

A key, a certificate for it and a root certificate, in a folder that only you may read; nothing is
overwritten. aigc sample and aigc serve sign with it (sign=FOLDER), and aigc verify trust=FOLDER
knows it. It proves that files come from one key and were not changed, not who you are.

examples
  aigc sign init name="A. Person"
  aigc sample sign=~/.config/aigc/signing""",
    "completion": """\
usage: aigc completion bash

It completes commands, flags, keys, the names after model= and the like, and runs.

examples
  eval "$(aigc completion bash)"
  aigc completion bash >> ~/.bashrc
  aigc completion bash > ~/.local/share/bash-completion/completions/aigc""",
}
