"""``aigc compare``: what differs between runs, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Sequence

from aigc_cli.config.words import asked_of
from aigc_cli.errors import ConfigError
from aigc_cli.files import path_of
from aigc_cli.registry import plugin_words
from aigc_cli.reports.comparison import as_json as plain
from aigc_cli.reports.comparison import describe
from aigc_cli.reports.facts import facts_of
from aigc_cli.runs import OUTPUTS, find_run

_KEYS = ("outputs",)


def main(names: Sequence[str], words: Sequence[str], *, as_json: bool = False) -> int:
    """Compares the runs that `names` names.

    Raises:
        ConfigError: there is no such run or key, or fewer than two runs are named.
    """
    asked = asked_of(words, _KEYS, "compare")
    root = path_of(asked.get("outputs") or OUTPUTS)
    found = {run.path: run for run in (find_run(name, root, trained=False) for name in names)}
    if len(found) < 2:
        raise ConfigError("aigc compare needs two runs", "name them, as `aigc ls runs` does: aigc compare A B")
    runs = facts_of(found.values())
    if as_json:
        print(json.dumps(plain(runs), ensure_ascii=False))
        return 0
    print(describe(runs))
    print(f"\nnext: aigc report {' '.join(run.run.named for run in runs)} out=comparison.html{plugin_words()}")
    return 0
