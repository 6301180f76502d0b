"""Names -> components, each with its typed config.

A component registers itself with a decorator beside its code::

    @register("model", "gan", GANConfig)
    class GAN(Model): ...

and is found by name: importing every module of the folder that holds its kind, subfolders included, is all the
discovery there is, so a new component is one new file. Packages installed by the user join through the entry point
group ``aigc_plugins``, and a module named with ``--plugin`` joins for one command.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import os
import pkgutil
import shlex
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from aigc_cli.errors import ConfigError, no_such
from aigc_cli.files import path_of

ENTRY_POINT_GROUP = "aigc_plugins"
#: The folder whose modules hold each kind of component.
HOMES = {
    "model": "aigc_cli.models", "tokenizer": "aigc_cli.models", "modality": "aigc_cli.modalities",
    "data": "aigc_cli.data", "filter": "aigc_cli.sampling", "survey": "aigc_cli.data",
    "optimizer": "aigc_cli.training", "logger": "aigc_cli.training.loggers",
    "extractor": "aigc_cli.metrics.extractors", "metric": "aigc_cli.metrics", "report": "aigc_cli.data",
    "preparation": "aigc_cli.data",
}  # fmt: skip

T = TypeVar("T")


@dataclass(frozen=True)
class Component:
    """A registered component: how it is built, and the dataclass that types its configuration."""

    kind: str
    name: str
    build: Callable[..., Any]
    config: type


_components: dict[tuple[str, str], Component] = {}
_loaded: set[str] = set()
_plugins: dict[str, Path | None] = {}
#: What tells the plugins that an opened run names: asked for a hint alone, never imported, as it may be a stranger's.
of_runs: list[Callable[[], list[str]]] = []


def register(kind: str, name: str, config: type = object) -> Callable[[T], T]:
    """Registers a class or function as the component `name` of `kind` (a key of :data:`HOMES`).

    `config` types its configuration; a modality has none.
    """
    if kind not in HOMES:
        raise ValueError(f"unknown kind {kind!r}, choose from {', '.join(HOMES)}")

    def add(build: T) -> T:
        known = _components.get((kind, name))
        if known is not None and _origin(known.build) != _origin(build):
            raise ConfigError(
                f"two components are registered as {kind}={name}: {_origin(known.build)} and {_origin(build)}",
                "rename one of them",
            )
        _components[kind, name] = Component(kind, name, build, config)  # type: ignore[arg-type]
        return build

    return add


def _origin(build: Any) -> str:
    return f"{build.__module__}.{build.__qualname__}"


def load(kind: str) -> None:
    """Imports everything that may register components of `kind`."""
    home = HOMES[kind]
    if home not in _loaded:
        package = importlib.import_module(home)
        for module in pkgutil.walk_packages(package.__path__, f"{home}."):
            importlib.import_module(module.name)
        _loaded.add(home)
    _load_plugins()


def _load_plugins() -> None:
    for point in plugin_entry_points():
        _import(point.value.split(":")[0])


def _load_modality(name: str) -> None:
    """Imports the module of our folder that is called as a modality, else the plugins: to import all of them, as for
    the other kinds, would bring Pillow, torch and tokenizers along for the sake of a name or a shape."""
    module = f"{HOMES['modality']}.{name}"
    if name.isidentifier() and importlib.util.find_spec(module) is not None:
        importlib.import_module(module)
    else:
        _load_plugins()


def names(kind: str) -> list[str]:
    """The names of all registered components of `kind`."""
    load(kind)
    return sorted(name for other, name in _components if other == kind)


def find(kind: str, name: str) -> Component:
    """The component `name` of `kind`; without it, a :class:`ConfigError` that names the nearest."""
    if kind == "modality":
        _load_modality(name)
    else:
        load(kind)
    try:
        return _components[kind, name]
    except KeyError:
        error = no_such(kind, name, names(kind))
        missing = sorted({module for plugins in of_runs for module in plugins()} - {*_plugins})
        hint = f"{error.hint}; name the plugin that adds it with --plugin"
        raise ConfigError(error.message, f"add --plugin {','.join(missing)}" if missing else hint) from None


def own_data(path: str) -> str:
    """A hint: the words for what lies at a path as data; "" where nothing lies there that any data= reads."""
    found = path_of(path)
    if not path or not os.path.exists(found) or os.path.realpath(found) == os.sep:  # nobody's data is all there is
        return ""
    name = find("survey", "path").build(found)
    return f"write data={name} data.root={shlex.quote(path)}" if name else ""


def name_of(build: Any) -> str:
    """The name that a class or function is registered by, as users type it; its own where it is not registered."""
    return next((name for (_, name), known in _components.items() if known.build is build), str(build.__name__))


def is_imported(kind: str, name: str) -> bool:
    """Whether a component is known by now, as a plugin's is; nothing is imported to tell."""
    return (kind, name) in _components


@functools.cache  # it reads the metadata of every package there is, and is asked for each key of a command line
def plugin_entry_points() -> list[importlib.metadata.EntryPoint]:
    """The plugins of installed packages, read from their metadata without importing them."""
    return list(importlib.metadata.entry_points(group=ENTRY_POINT_GROUP))


def import_plugin(module: str) -> None:
    """Imports a module, of the current folder too, that registers components; a :class:`ConfigError` if that fails."""
    if "" not in sys.path:
        sys.path.insert(0, "")  # `aigc` is a script: the folder it is called from is not on the path by itself
    _import(module)


def _import(module: str) -> None:
    if module in _plugins:
        return
    try:
        imported = importlib.import_module(module)
    except ConfigError:
        raise
    except Exception as error:
        what = f"plugin {module!r} could not be imported: {type(error).__name__}: {error}"
        raise ConfigError(what, _import_hint(module, error)) from error
    _plugins[module] = Path(imported.__file__).parent / "configs" if imported.__file__ else None


def _import_hint(module: str, error: Exception) -> str:
    if module.endswith(".py") or "/" in module:
        return f"leave out .py and the folder: --plugin {Path(module).stem}, run there or put the folder on PYTHONPATH"
    if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
        return "name a module that Python can import from here, for example --plugin my_models"
    # Below our own frame and those of the import lie the plugin's; what they call of other packages is not its code.
    frames = [frame for frame in traceback.extract_tb(error.__traceback__)[1:] if "importlib" not in frame.filename]
    own = [frame for frame in frames if Path(frame.filename).parent == Path(frames[0].filename).parent]
    where = f"{own[-1].filename}, line {own[-1].lineno}" if own else module
    where = f"{error.filename}, line {error.lineno}" if isinstance(error, SyntaxError) else where
    return f"the plugin was found, but its own code fails: {where}"


def plugin_words() -> str:
    """`` --plugin X`` for each plugin that is not installed: what we tell a user to type next needs it as well."""
    installed = {point.value.split(":")[0] for point in plugin_entry_points()}
    return "".join(f" --plugin {module}" for module in _plugins if module not in installed)


def plugin_configs() -> list[Path]:
    """The `configs` folders that lie beside the imported plugins."""
    return [folder for folder in _plugins.values() if folder is not None and folder.is_dir()]
