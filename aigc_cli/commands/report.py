"""``aigc report``: runs and sweeps as one page that can be kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from aigc_cli.config.words import asked_of
from aigc_cli.errors import ConfigError, warn
from aigc_cli.files import check_writable, path_of, resource_errors, shown, write_atomically
from aigc_cli.progress import size
from aigc_cli.reports.facts import Facts, facts_of
from aigc_cli.reports.page import report
from aigc_cli.reports.sweep import Sweep
from aigc_cli.reports.sweep_table import TABLE
from aigc_cli.runs import OUTPUTS, Run, find_run

_KEYS = ("out", "outputs")


def main(names: Sequence[str], words: Sequence[str], *, as_json: bool = False) -> int:
    """Writes a report of the runs and sweeps that `names` names, of the latest run where there are none.

    Raises:
        ConfigError: there is no such run, sweep or key.
    """
    asked = asked_of(words, _KEYS, "report")
    root, out = path_of(asked.get("outputs") or OUTPUTS), path_of(asked.get("out") or "report.html")
    if out.is_dir() or out.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"out={out} is not a page", "name a file that ends in .html")
    check_writable(out.parent, "with out=")
    runs, swept = named(names or ["latest"], root)
    page, left_out = report(runs, swept)
    with resource_errors(out, "with out="):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, page)
    if left_out:
        warn(f"files of samples were left out: {len(left_out)}; the end of the page names them")
    if as_json:
        print(json.dumps({"out": str(out), "runs": [run.name for run in runs], "left_out": left_out}))
    else:
        print(f"report of {', '.join(run.name for run in runs)}\n  {shown(out)} ({size(len(page.encode()))})")
    return 0


def named(names: Sequence[str], root: Path) -> tuple[list[Facts], list[Sweep]]:
    """The runs and sweeps that are named, each once; the best run of a sweep is one of the runs."""
    runs: dict[Path, Run] = {}
    swept: list[Sweep] = []

    def add(run: Run) -> None:
        run.config  # noqa: B018 - one that cannot be read is named before anything is written
        runs.setdefault(run.path.resolve(), run)

    for name in names:
        places = (path_of(name), root / name, root / "sweeps" / name)
        if "," in name and not any(place.exists() for place in places):
            raise ConfigError(f"there is no run {name!r}", f"separate runs by spaces: {name.replace(',', ' ')}")
        folder = next((place for place in places if (place / TABLE).is_file()), None)
        if folder is None:
            add(find_run(name, root, trained=False))
            continue
        swept.append(sweep := Sweep(folder))
        if (best := sweep.best()) is not None:
            add(best)
    return facts_of(runs.values()), swept
