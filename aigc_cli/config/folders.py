"""The folders that hold configurations, and what their YAML files say of each key."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from aigc_cli.registry import plugin_configs, plugin_entry_points

#: The groups whose files set keys of all sections.
GLOBAL = ("recipe", "experiment")
PACKAGE = Path(__file__).resolve().parents[1]


@functools.cache
def packaged_configs() -> Path:
    """Our own configurations: beside the package in a wheel, at the repository's root in an editable install."""
    beside = PACKAGE / "configs"
    return beside if beside.is_dir() else PACKAGE.parent / "configs"


def config_folders() -> list[Path]:
    """Every folder there is, in order of precedence: a file in an earlier one replaces its namesake in a later one.

    ``./configs``, ``~/.config/aigc``, the ``configs`` folders of plugins, and last the packaged one.
    """
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    wanted = [Path.cwd() / "configs", home / "aigc", *plugin_configs(), *_entry_point_configs(), packaged_configs()]
    unique = {folder.resolve(): None for folder in reversed(wanted) if folder.is_dir()}
    return list(reversed(unique))


def _entry_point_configs() -> list[Path]:
    """The `configs` folders of installed plugins, found without importing what may take a while."""
    folders = []
    for point in plugin_entry_points():
        root, *inner = point.value.split(":")[0].split(".")
        spec = importlib.util.find_spec(root)
        for location in (spec.submodule_search_locations or []) if spec else []:
            module = Path(location, *inner)
            folders.append((module if module.is_dir() else module.parent) / "configs")
        if spec and spec.origin and not spec.submodule_search_locations:
            folders.append(Path(spec.origin).parent / "configs")
    return folders


def options(group: str) -> dict[str, Path]:
    """The options of a group over all folders: names, with the file that each one comes from."""
    found: dict[str, Path] = {}
    for folder in config_folders():
        for path in sorted((folder / group).glob("*.yaml")):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


class Key(NamedTuple):
    """A key as its YAML file writes it."""

    name: str  # with dots; the groups that a command chooses from are under "defaults."
    value: str  # as it is written; "" for a section
    kind: str  # in capitals, such as FOLDER, for a key whose value is text; else ""
    comment: str


class Choice(NamedTuple):
    """One of the values that a key's comment lists."""

    name: str
    what: str


_LINE = re.compile(
    r"(?P<indent> *)(?P<mark>- (?:optional )?|# )?(?P<name>\w+)(?:@[\w.]+)?:"
    r"(?: +(?P<value>[^#\s](?:[^#]*[^#\s])?))?(?: +# *(?:(?P<kind>[A-Z]{2,}): )?(?P<comment>.*))?"
)


@functools.cache
def keys_of(path: Path) -> dict[str, Key]:
    """The keys of a YAML file by name, in its order, after those of the files that its ``defaults`` name.

    A comment belongs to the key before it, and may go on in the lines below. One that begins with a word in capitals
    declares that the value is text: ``root: null # FOLDER: ...``. A key that is commented out together with a comment
    of its own is an example of what may stand there. This is read line by line: a parser would drop the comments, and
    takes longer to import than ``--help`` may take.
    """
    found: dict[str, Key] = {}
    slot = ""
    parents: list[tuple[int, str]] = []  # the sections around a line, each with its indent
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        match = _LINE.fullmatch(line)
        if match is None or (match["mark"] == "# " and (match["comment"] is None or not match["indent"])):
            if slot in found and line.startswith(" ") and line.lstrip().startswith("#"):
                found[slot] = found[slot]._replace(comment=f"{found[slot].comment} {line.strip(' #')}")
            continue
        indent, value = len(match["indent"]), match["value"] or ""
        parents = [parent for parent in parents if parent[0] < indent] + [(indent, match["name"])]
        name = ".".join(part for _, part in parents)
        if name == "defaults":
            for base in set(re.findall(r"\w+", value)) & set(options(path.parent.name)) - {path.stem}:
                found |= keys_of(options(path.parent.name)[base])
        else:
            old = found.get(name, Key(name, "", "", ""))
            slot = name if match["mark"] != "# " or name not in found else f"{name}={value}"
            found[slot] = Key(name, value, match["kind"] or old.kind, match["comment"] or old.comment)
    return found


#: A value in a list such as ``of the rate: constant | linear (a ramp) | cosine, which is slow; and a remark``.
_CHOICE = re.compile(r"(?P<name>[\w.-]+(?::N)?)(?: \((?P<paren>[^()]*)\))?(?P<sep>$|[:,;.] )(?P<rest>.*)")
_LED = re.compile(r"(?P<lead>.+): (?P<choice>[\w.-]+(?: \([^()]*\))?)")


def choices_of(comment: str) -> tuple[list[Choice], str]:
    """The choices that a comment lists as ``a | b (what b is) | c``, perhaps none, and what else it says."""
    pieces = comment.split(" | ")
    led = _LED.fullmatch(pieces[0])
    found, remarks = [], [led["lead"]] if led else []
    for position, piece in enumerate([led["choice"], *pieces[1:]] if led else pieces):
        match = _CHOICE.fullmatch(piece)
        if match is None or len(pieces) == 1:
            return [], comment
        aside = match["sep"] in ("; ", ". ") or (match["rest"].startswith("or ") and position == len(pieces) - 1)
        found.append(
            Choice(
                match["name"],
                "; ".join(filter(None, [match["paren"], "" if aside else match["rest"].removeprefix("which is ")])),
            )
        )
        remarks += [match["rest"]] if aside else []
    return found, "; ".join(remarks)


def values_of(key: Key) -> list[str]:
    """The names of the choices that a key's comment lists."""
    return [choice.name for choice in choices_of(key.comment)[0]]


def header(path: Path) -> list[str]:
    """The comment that a YAML file begins with, line by line; the first one describes the file in one sentence."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    head = list(itertools.takewhile(lambda line: line.startswith("#"), lines))
    return [line.lstrip("# ") for line in head if not line.startswith(("# @", "# when:", "# facts:"))]


def declared(path: Path, mark: str) -> str:
    """What a YAML file declares of itself in a line ``# MARK ...`` at its top; else "".

    A mark is ``@NAME``, in the manner of Hydra, or ``NAME:`` where several words may follow, which Hydra refuses there.
    """
    match = re.search(rf"^# {mark} (.+)", path.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    return match[1].strip() if match else ""


def modality_of(data: str) -> str:
    """What a dataset declares itself to be, such as ``text``: in its own YAML file, or in that of its component."""
    files = options("data")
    for name in (data, keys_of(files[data])["name"].value if data in files and "name" in keys_of(files[data]) else ""):
        if name in files and (found := declared(files[name], "@modality")):
            return found
    return ""


def command_keys(command: str) -> dict[str, Key]:
    """The keys of a command's own YAML file."""
    return keys_of(packaged_configs() / f"{command}.yaml")


def chosen_options(command: str, chosen: Iterable[tuple[str, str]] = ()) -> dict[str, list[str]]:
    """The options of each group of a command: those `chosen`, such as ``("model", "vae")``, else the usual ones.

    A model may bring other data, and stands for its variant on the data, as where a configuration is composed.
    """
    keys, typed = command_keys(command), dict(chosen)
    picked = {group: typed.get(group, keys[f"defaults.{group}"].value) for group in groups(command)}
    models = options("model") if "model" in picked else {}
    if picked.get("model") in models:
        brought = re.search(
            r"override /data\S*: (\w+)", models[picked["model"]].read_text(encoding="utf-8", errors="replace")
        )
        picked["data"] = picked["data"] if "data" in typed or brought is None else brought[1]
        variant = f"{picked['model']}_{modality_of(picked['data'])}"
        picked["model"] = variant if variant in models else picked["model"]
    return {
        group: [name for name in re.findall(r"[\w-]+", value) if name in options(group)]
        for group, value in picked.items()
    }


def explained_keys(command: str, picked: Mapping[str, Iterable[str]]) -> dict[str, Key]:
    """The keys of a command and of the options `picked` from its groups, by the names that words give them."""
    found: dict[str, Key] = {}
    for slot, key in command_keys(command).items():
        name = slot.removeprefix("defaults.").removeprefix("controls.")
        if name != "defaults" and (key.value or key.comment or name not in found):
            found[name] = key
    for group, names in picked.items():
        for path in filter(None, map(options(group).get, () if group in GLOBAL else names)):
            found |= {f"{group}.{slot}": key for slot, key in keys_of(path).items()}
    return {slot: key._replace(name=slot.partition("=")[0]) for slot, key in found.items()}


def all_keys(command: str, chosen: Collection[str] = ()) -> set[str]:
    """The keys that words may set, with dots: the command's own, and those of all options of its groups, or only of
    those that words such as ``model=gan`` have `chosen`."""
    names = {name.removeprefix("defaults.") for name in command_keys(command) if not name.startswith("controls")}
    for group in set(groups(command)) - set(GLOBAL):
        files = options(group)
        picked = [path for name, path in files.items() if f"{group}={name}" in chosen]
        names |= {f"{group}.{name}" for path in picked or files.values() for name in keys_of(path)}
    return names


@functools.cache
def groups(command: str) -> tuple[str, ...]:
    """The groups that a command chooses from, such as ``model``."""
    return tuple(name.removeprefix("defaults.") for name in command_keys(command) if name.startswith("defaults."))


@functools.cache
def top_level_keys(command: str) -> frozenset[str]:
    """The keys that a command's composed configuration has at the top."""
    own = {name.split(".")[0] for name in command_keys(command)}
    return frozenset({*own, *groups(command)} - {"defaults", *GLOBAL})
