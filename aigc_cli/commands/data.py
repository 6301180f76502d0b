"""``aigc data``: what a person's data is before anything is trained on it, and a cleaned copy of it."""

from __future__ import annotations

import json
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from aigc_cli.config.compose import compose, recipes
from aigc_cli.config.folders import keys_of
from aigc_cli.config.folders import options as files_of
from aigc_cli.config.schema import STRICT, Options, check
from aigc_cli.config.words import split_key
from aigc_cli.data.prepare import RECORD, Asked, prepare
from aigc_cli.data.report import NAMED, Look, Report, counted, look_at, report_on, words_of
from aigc_cli.errors import ConfigError, DataError, say_plainly
from aigc_cli.files import path_of, resource_errors, shown
from aigc_cli.modalities.image_decode import picture_suffixes
from aigc_cli.progress import table
from aigc_cli.registry import plugin_words

_WIDTH = 100
_STOPPING = ("refused", "broken_file", "broken", "markup", "empty_file")  # findings for which training may stop
_REASONS = 12  # that a person is shown


@dataclass(config=STRICT, frozen=True, kw_only=True)
class DataConfig:
    """The keys of ``configs/data.yaml``."""

    task: Literal["show", "prepare"]
    data: dict[str, Any]
    out: Annotated[str, Field(min_length=1)] | None
    preview: bool
    format: Literal["auto", "folder", "parquet", "txt", "jsonl", "tsv"]
    size: Annotated[int, Field(ge=1, le=4096)] | Literal["auto"] | None
    dedup: Literal["exact", "near", False]
    outputs: str


def main(config: dict[str, Any], options: Options) -> int:
    """Reports on data, or prepares it, as `config` says; the exit code."""
    asked: DataConfig = check("", DataConfig, config)
    if asked.task == "show":
        idle = {"format", "size", "dedup"} & options.given
        if idle:
            raise ConfigError(f"{min(idle)}= is a key of aigc data prepare", "leave it out, or write aigc data prepare")
        return _show(asked, options)
    return _prepare(asked, options)


def _show(asked: DataConfig, options: Options) -> int:
    look, followed = _as_trained(look_at(asked.data), options)
    report = report_on(look)
    preview = _preview(asked, report)
    following = next_command(look, report, options)
    if options.json:
        told = {
            "data": look.values["name"], "root": look.values.get("root"), "kind": look.kind, **report.facts,
            "recipes": followed, "findings": [finding.state() for finding in report.findings],
            "preview": None if preview is None else str(preview), "next": following,
        }  # fmt: skip
        print(json.dumps(told, indent=2))
        return 0
    _print(look, report, followed)
    if preview is not None:
        print(f"\npreview  {shown(preview)}")
    if following is not None:
        print(f"\nnext: {following}")
    return 0


def _as_trained(look: Look, options: Options) -> tuple[Look, list[str]]:
    """The data as training has it, whose recipes set keys that nobody typed, and the files of these recipes."""
    words = [*([f"model={look.model}"] if look.model else []), *words_of(options.overrides)]
    try:
        values = compose("train", words)["data"]
        if values["name"] != look.values["name"] or look.stops:
            return look, []
        files = [line.rpartition(", from ")[2] for line in recipes(words)]
        own = [name for name in files if _sets_data(name)]
        return (look_at(values) if own else look), own
    except (ConfigError, DataError):  # what is wrong with a model's settings is said when it is trained
        return look, []


def _sets_data(file: str) -> bool:
    group, _, name = file.removesuffix(".yaml").partition("/")
    return any(key.startswith("data.") for key in keys_of(files_of(group)[name]))


def _say(text: str) -> None:
    """A line that may hold names of files, or text, without what would move a terminal's cursor."""
    say_plainly("".join(letter if letter.isprintable() or letter == "\n" else "\ufffd" for letter in text))


def _preview(asked: DataConfig, report: Report) -> Path | None:
    if report.preview is None or not asked.preview:
        return None
    if asked.out is None:
        path = path_of(asked.outputs) / "data" / f"{_name_of(asked.data)}.png"
    else:
        path = path_of(asked.out)
        if path.suffix.lower() != ".png":
            raise ConfigError(f"out={path} does not end in .png", f"write out={path}.png")
    with resource_errors(path, "with out="):
        report.preview(path)
    return path


def _name_of(values: Mapping[str, Any]) -> str:
    """What files about some data are called: as its folder or file, or the dataset."""
    root = values.get("root")
    name = path_of(root).absolute().name.partition(".")[0] if root else ""
    return name or str(values["name"])


def _free(values: Mapping[str, Any]) -> Path:
    """Where a cleaned copy may be written: here, unless that lies within the data."""
    root = path_of(values["root"]).resolve() if values.get("root") else None
    here = Path.cwd().resolve()
    folder = root.parent if root is not None and here.is_relative_to(root) else here
    name = f"{_name_of(values)}-clean"
    names = [name, *(f"{name}-{number}" for number in range(2, 100))]
    return shown(folder / next((each for each in names if not (folder / each).exists()), name))


def _print(look: Look, report: Report, followed: Sequence[str]) -> None:
    root = look.values.get("root")
    print(f"data={look.values['name']}{'' if root is None else f', {root}'}")
    print(f"as model={look.model} takes it, by {', '.join(followed)}\n" if followed else "")
    for line in table(report.lines):
        _say(f"  {line}")
    for number, excerpt in enumerate(report.excerpts):
        _say(f"{'' if number else chr(10)}  {excerpt}")
    if not report.findings:
        print("\nnothing to report: no broken items, no copies")
        return
    print(f"\n{len(report.findings)} finding{'s' if len(report.findings) > 1 else ''}")
    for finding in report.findings:
        for text, first, rest in ((finding.shown, "  - ", "    "), (finding.hint, "      ", "      ")):
            if text:
                lines = textwrap.wrap(
                    text, _WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
                )
                _say("\n".join(lines))


def next_command(look: Look, report: Report, options: Options) -> str | None:
    """What to type next: a cleaned copy where that puts something right, else training; where that would stop, what
    shows pictures as such, or nothing."""
    changed = {split_key(word)[1] for word in report.sets}
    words = [word for word in words_of(options.overrides) if split_key(word)[1] not in changed] + report.sets
    prepared = [finding for finding in report.findings if finding.prepared]
    if report.stops and all(finding.code not in _STOPPING for finding in prepared):
        kinds: Mapping[str, int] = report.facts.get("left_out", {})
        if 2 * sum(count for kind, count in kinds.items() if kind in picture_suffixes()) <= sum(kinds.values()):
            return None
        words = ["data=image_folder", *(word for word in words if split_key(word)[1] == "data.root")]
        return f"aigc data show {shlex.join(words)}{plugin_words()}"
    if prepared:
        out = f"out={_free(look.values)}"
        return f"aigc data prepare {shlex.join([*words, out])}{plugin_words()}"
    model = [f"model={look.model}"] if look.model else []
    return f"aigc train {shlex.join([*model, *words])}".rstrip() + plugin_words()


def _prepare(asked: DataConfig, options: Options) -> int:
    if asked.out is None:
        raise ConfigError("aigc data prepare needs out=", "name the folder to write, such as out=clean")
    out = path_of(asked.out).absolute()
    prepared = prepare(Asked(asked.data, asked.format, asked.size, asked.dedup, words_of(options.overrides)), out)
    where = shlex.quote(str(shown(out)))
    following = " ".join(["aigc train", *map(shlex.quote, prepared.words), f"data.root={where}"]) + plugin_words()
    if options.json:
        counts = {why: len(names) for why, names in prepared.left_out.items()}
        told = {"out": str(out), "items": prepared.items, "left_out": counts, "changed": prepared.changed}
        print(json.dumps({**told, "record": str(out / RECORD), "next": following}, indent=2))
        return 0
    items = ", ".join(f"{count:,} {split}" for split, count in prepared.items.items())
    print(f"{counted(sum(prepared.items.values()), prepared.noun)} in {shown(out)}: {items}")
    for why, names in sorted(prepared.left_out.items(), key=lambda each: -len(each[1]))[:_REASONS]:
        more = ", ..." if len(names) > NAMED else ""
        _say(f"  left out: {why} ({len(names):,}): {', '.join(names[:NAMED])}{more}")
    if len(prepared.left_out) > _REASONS:
        print(f"  left out for {len(prepared.left_out) - _REASONS} more reasons")
    for what, count in prepared.changed.items():
        print(f"  {what} ({count:,})")
    print(f"  {shown(out / RECORD)} lists all that was left out\n\nnext: {following}")
    return 0
