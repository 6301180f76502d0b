"""``aigc runs``: what a person thinks of a run, and the disk that old checkpoints take."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from aigc_cli.commands.ls_runs import selected
from aigc_cli.config.words import asked_of, split_key
from aigc_cli.errors import ConfigError, no_such, warn
from aigc_cli.files import path_of, resource_errors
from aigc_cli.progress import size, table
from aigc_cli.run_index import disk_use, known_runs, notes_of, write_notes
from aigc_cli.runs import OUTPUTS, Run, find_run

_TASKS = ("note", "prune")


def main(names: Sequence[str], words: Sequence[str], *, as_json: bool = False) -> int:
    """Does what the first of `names` says to the runs that the others name.

    Raises:
        ConfigError: there is no such task, run or key; or nobody can be asked.
    """
    if not names:
        raise ConfigError(
            "aigc runs needs to know what to do", "write aigc runs note, aigc runs prune, or aigc ls runs"
        )
    if names[0] not in _TASKS:
        raise no_such("task", names[0], _TASKS)
    task = {"note": _note, "prune": _prune}[names[0]]
    return task(names[1:], words, as_json)


def _note(names: Sequence[str], words: Sequence[str], as_json: bool) -> int:
    asked = asked_of(words, ("text", "tags", "outputs"), "runs note")
    if len(names) > 1:
        raise ConfigError(f"aigc runs note takes one run, and {names[1]!r} is another word", 'write text="..."')
    run = find_run(next(iter(names), "latest"), path_of(asked.get("outputs") or OUTPUTS), trained=False)
    kept = notes_of(run.path)
    if {"text", "tags"} & asked.keys():
        kept["note"] = asked.get("text", kept["note"])
        if "tags" in asked:
            kept["tags"] = [tag.strip() for tag in asked["tags"].strip("[]").split(",") if tag.strip()]
        with resource_errors(run.path):
            write_notes(run.path, **kept)
    if as_json:
        print(json.dumps({"run": run.name, **kept}, ensure_ascii=False))
        return 0
    print(f"{run.name}{': ' if kept['tags'] else ''}{', '.join(kept['tags'])}")
    print(f"  {kept['note'] or 'no note yet; write text=...'}")
    return 0


def _prune(names: Sequence[str], words: Sequence[str], as_json: bool) -> int:
    asked = {key: value or "" for _, key, value in map(split_key, words)}
    keep = asked.get("keep", "1")
    if not keep.isdecimal() or int(keep) < 1:
        raise ConfigError(f"keep={keep} is not a number of checkpoints", "keep=1 keeps the newest one, and the best")
    yes = asked.get("yes", "false").lower()
    if yes not in ("true", "false"):
        raise ConfigError(f"yes={yes} is neither true nor false", "leave it out to be asked")
    root = path_of(asked.get("outputs") or OUTPUTS)
    chosen = [word for word in words if split_key(word)[1] not in ("keep", "yes", "sort", "columns")]
    rows, _ = selected(chosen, ("keep", "yes"))
    wanted = {find_run(name, root, trained=False).path.resolve() for name in names}
    if wanted and (away := wanted - {run.path.resolve() for run in known_runs(root)}):
        raise ConfigError(f"{min(away)} is not one of the runs of {root}/", "name the folder of its runs with outputs=")
    runs = [Run(Path(row["path"])) for row in rows if not wanted or Path(row["path"]).resolve() in wanted]
    found = [(run, spare) for run in runs if run.status() != "running" and (spare := _spare(run, int(keep)))]
    freed = sum(disk_use(folder) for _, spare in found for folder in spare)
    if not as_json:
        lines = [[run.name, ", ".join(folder.name for folder in spare)] for run, spare in found]
        count = _counted(sum(len(spare) for _, spare in found))
        print("\n".join([*table(lines), f"{count}, {size(freed)} on the disk"]))
    if found and yes == "false":
        if as_json or not sys.stdin.isatty():
            raise ConfigError("nobody is there to be asked whether to delete them", "add yes=true")
        if input("delete them? they cannot be brought back [y/N] ").strip().lower() not in ("y", "yes"):
            print("nothing was deleted")
            return 0
    deleted = [str(folder) for run, spare in found for folder in _delete(run, spare, int(keep))]
    if as_json:
        print(json.dumps({"deleted": deleted, "bytes": freed}))
    elif deleted:
        print(f"deleted {_counted(len(deleted))}")
    return 0


def _counted(n: int) -> str:
    return f"{n} checkpoint{'' if n == 1 else 's'}"


def _spare(run: Run, keep: int) -> list[Path]:
    """The checkpoints that nothing needs: a run resumes from the newest one that is whole, and the best is asked for by
    ``step=best``. Reads all but what it would delete, since a newest one that is broken is worth nothing. What is a
    link is left alone: it may be another run's."""
    from aigc_cli.training.checkpoint import CheckpointFolder, is_whole
    from aigc_cli.training.restore import best_step

    if run.checkpoints.is_symlink():
        return []
    folder, whole = CheckpointFolder(run.checkpoints), 0
    for step in reversed(steps := folder.steps()):
        if whole == keep:
            best = best_step(run)
            older = (folder.folder(each) for each in steps if each <= step and each != best)
            return [path for path in older if not path.is_symlink()]
        whole += is_whole(folder.folder(step))
    return []


def _delete(run: Run, spare: Sequence[Path], keep: int) -> Sequence[Path]:
    with ExitStack() as stack:
        try:
            stack.enter_context(run.lock())
        except ConfigError as error:  # it has begun to train meanwhile
            warn(f"{run.name} is left alone: {error.message}")
            return ()
        still = {*_spare(run, keep)}  # it may have trained while a person thought
        spare = [folder for folder in spare if folder in still]
        with resource_errors(run.path):
            for folder in spare:
                shutil.rmtree(folder)
    return spare
