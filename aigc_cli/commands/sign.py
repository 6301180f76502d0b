"""``aigc sign init``: a key and certificates of one's own, for ``sign=``."""

from __future__ import annotations

import getpass
import json
from collections.abc import Sequence
from pathlib import Path

from aigc_cli.config.words import asked_of
from aigc_cli.errors import ConfigError
from aigc_cli.files import path_of, shown
from aigc_cli.modalities.credentials import KEY, ROOT, make_identity

_USUAL = "~/.config/aigc/signing"
_LONGEST = 58  # bytes of a name: certificates hold 64, and the root's has ", root" after it


def main(names: Sequence[str], words: Sequence[str], *, as_json: bool = False) -> int:
    """Makes what signs.

    Raises:
        ConfigError: there is another task or key, or a key is there already.
    """
    if list(names) != ["init"]:
        raise ConfigError(
            "aigc sign makes a key: it knows init alone", "write aigc sign init; then aigc sample sign=..."
        )
    asked = asked_of(words, ("out", "name"), "sign init")
    name = asked.get("name") or getpass.getuser()
    if not 0 < len(name.encode()) <= _LONGEST:
        raise ConfigError(f"name= has 1 to {_LONGEST} bytes", "choose another name=")
    folder = path_of(asked.get("out") or str(Path(_USUAL).expanduser()))
    make_identity(folder, name)
    if as_json:
        print(json.dumps({"out": str(folder), "name": name}))
        return 0
    print(f"{shown(folder)} holds a key and its certificates, for 10 years")
    print(f"  {shown(folder) / KEY}  signs, and is for nobody else's eyes")
    print(f"  {shown(folder) / ROOT}  is for whoever is to check: aigc verify FILE trust={ROOT}")
    print("Files that it signs are proven to come from one key and unchanged since. That the key is yours, others know")
    print(f"only from you: to programs that know C2PA's trust list alone, {name!r} is a name that anybody could write.")
    print(f"next: aigc sample sign={shown(folder)}")
    return 0
