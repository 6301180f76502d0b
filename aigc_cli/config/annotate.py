"""A configuration as YAML in which each key has its comment; it loads to the same mapping."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from aigc_cli.config.folders import Key

_WIDTH = 120
#: libyaml's, where PyYAML was built with it, takes a tenth of the time.
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def annotated(config: Mapping[str, Any], keys: Mapping[str, Key]) -> str:
    """The YAML of plain data, with the comments of `keys`, which are named with dots."""
    return "\n".join([*_lines(config, keys, "", ""), ""])


def _lines(node: Mapping[str, Any], keys: Mapping[str, Key], prefix: str, indent: str) -> Iterator[str]:
    for name, value in node.items():
        key = keys.get(f"{prefix}{name}")
        said = "" if key is None else f"{key.kind}: {key.comment}" if key.kind and key.comment else key.comment
        section = isinstance(value, Mapping) and bool(value)
        text = f"{_dump(name)}:" if section else f"{_dump(name)}: {_dump(value)}"
        yield from _with_comment(f"{indent}{text}", said, indent)
        if section:
            yield from _lines(value, keys, f"{prefix}{name}.", f"{indent}  ")


def _dump(value: Any) -> str:
    """One value on one line."""
    # A list around it keeps the end-of-document mark of a bare scalar away, and lines and comments out of strings.
    line = yaml.dump([value], Dumper=_DUMPER, default_flow_style=True, allow_unicode=True, sort_keys=False, width=10**9)
    return str(line).strip()[1:-1]


def _with_comment(line: str, comment: str, indent: str) -> Iterator[str]:
    """A comment behind its key, which goes on in the lines below, indented further, where it is long."""
    room = max(_WIDTH - len(line) - 4, 24)
    first, *rest = textwrap.wrap(comment, room, break_long_words=False, break_on_hyphens=False) or [""]
    yield f"{line}  # {first}" if first else line
    below = textwrap.wrap(" ".join(rest), _WIDTH - len(indent) - 4, break_long_words=False, break_on_hyphens=False)
    yield from (f"{indent}  # {each}" for each in below)
