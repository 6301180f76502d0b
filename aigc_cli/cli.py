"""Words on the command line -> a command, with its errors and exit codes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

from aigc_cli import __version__
from aigc_cli.config.words import COMPOSED, NAMING, Words, parse
from aigc_cli.errors import EXIT_INTERRUPTED, EXIT_OK, ConfigError, Interrupted, report, say, suggest, warn

EXIT_BROKEN_PIPE = 141  # as a shell reports SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line, without the program's name, and returns its exit code."""
    line = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in line
    open_streams()
    try:
        code = _run(parse(line))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        say("stopped")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # What reads our output has gone; Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except Exception as error:
        return report(error, debug=debug)


def open_streams() -> None:
    """Leads the standard streams that are closed nowhere: else the next file that is opened would receive what is
    printed, and Python has None for them."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def _run(words: Words) -> int:
    if words.version:
        print(f"aigc {__version__}")
        return EXIT_OK
    if words.help or words.command in (None, "help"):
        return _help(words)
    if words.plugin:
        from aigc_cli.registry import import_plugin

        for module in words.plugin:
            import_plugin(module)
    return _COMMANDS[str(words.command)](words)


def _help(words: Words) -> int:
    from aigc_cli.config.help import help_text

    if words.command is None and (words.overrides or words.names):
        raise ConfigError("a command is missing", "write for example aigc train model=gan")
    names = [words.command, *words.names] if words.command != "help" else words.names
    parts = ("model", "data", "optimizer", "trainer", "metric")
    typed = [(key, name) for key, equals, name in (word.partition("=") for word in words.overrides) if equals]
    topics = [*names[1:], *(key for key, _ in typed if key not in parts and words.help)]
    print(help_text(next(iter(names), None), [each for each in typed if each[0] in parts], topics))
    return EXIT_OK


def _composed(words: Words) -> int:
    """train, sample, eval, embed and export: compose, check, go."""
    import importlib
    from dataclasses import replace

    from aigc_cli.config.compose import compose, recipes, show
    from aigc_cli.config.schema import Options

    command = str(words.command)
    overrides = tuple(words.overrides)
    try:
        os.getcwd()
    except FileNotFoundError:
        raise ConfigError("the current folder has been deleted", "change to one that is there") from None
    if words.metric and command == "eval":
        overrides += (f"metric=[{','.join(words.metric)}]",)
    options = Options(
        overrides=overrides, json=words.json, resume=words.resume, plugins=tuple(words.plugin),
        metric=tuple(words.metric), began=time.monotonic(),
    )  # fmt: skip
    for key, values in words.several().items():  # a script may add words to a line that it was given
        warn(f"{key}= is given several times: {key}={values[-1]} counts")
    if words.cfg is not None:
        print(show(command, overrides, words.cfg), end="")
        return EXIT_OK
    if command == "train" and words.resume is None:
        from aigc_cli.config.explain import no_model_of, refuse

        refuse([no_model_of(overrides)])
    if words.multirun:
        from aigc_cli.commands import sweep

        return sweep.main(overrides, options)
    if words.resume is not None:
        from aigc_cli.config import grammar
        from aigc_cli.config.explain import refuse, several_values

        # They change the run's own configuration; of the defaults only what says where runs lie is used.
        changes = tuple(grammar.prepare("train", overrides))
        parsed = [word for word in map(grammar.parse, changes) if word is not None]
        refuse(several_values(word) for word in parsed if word.is_sweep_override())
        options = replace(options, overrides=changes)
        overrides = tuple(word for word in changes if word.startswith("outputs="))
    elif command == "train":
        options = replace(options, recipe=recipes(overrides))
    try:  # the first seconds go into imports
        config = compose(command, overrides)
        module = importlib.import_module(f"aigc_cli.commands.{'dry_run' if words.dry_run else command}")
    except KeyboardInterrupt:
        raise Interrupted("stopped before it began: nothing was saved", "the same command starts it again") from None
    return int(module.main(config, options))


def _ls(words: Words) -> int:
    from aigc_cli.commands import ls

    return ls.main(words.names, as_json=words.json, words=words.overrides)


def _naming(words: Words) -> int:
    """runs, compare: what they are about is named by words alone."""
    import importlib

    module = importlib.import_module(f"aigc_cli.commands.{words.command}")
    return int(module.main(words.names, words.overrides, as_json=words.json))


def _completion(words: Words) -> int:
    from aigc_cli.config.completion import SCRIPTS, answer

    if words.names == ["query"]:
        print("\n".join(answer(os.environ.get("COMP_LINE", ""))))
        return EXIT_OK
    _no_overrides(words.overrides, "completion")
    if len(words.names) != 1 or words.names[0] not in SCRIPTS:
        named = " ".join(words.names) or "no shell"
        raise ConfigError(f"aigc completion does not know {named}", suggest(named, SCRIPTS))
    print(SCRIPTS[words.names[0]], end="")
    return EXIT_OK


def _no_overrides(overrides: Sequence[str], command: str) -> None:
    if overrides:
        raise ConfigError(f"aigc {command} does not take {overrides[0]}", f"see aigc {command} --help")


_COMMANDS = {
    **dict.fromkeys(COMPOSED, _composed),
    "ls": _ls,
    **dict.fromkeys(NAMING, _naming),
    "completion": _completion,
}
