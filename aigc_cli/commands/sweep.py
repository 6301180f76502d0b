"""``aigc train -m``: a grid of jobs, or an optimizer's trials, each in its own run directory.

Hydra's sweeper says which jobs there are and its launcher where they run, in this process or in others. Every job
leaves a row of its own in the sweep's folder, so that they all come together whatever process they ran in.
"""

from __future__ import annotations

import functools
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, open_dict, read_write

from aigc_cli.commands.sweep_table import collect, common_words, finish, new_row, read_rows
from aigc_cli.config.compose import QUIET, audit, compose_raw, plain, recipes
from aigc_cli.config.grammar import prepare, quote
from aigc_cli.config.loader import Loader, config_loader
from aigc_cli.config.schema import Options
from aigc_cli.errors import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_TERMINATED,
    ConfigError,
    Interrupted,
    Terminated,
    as_user_error,
    report,
    say,
)
from aigc_cli.files import path_of, resource_errors, write_json
from aigc_cli.registry import import_plugin

_BASIC = f"{BasicSweeper.__module__}.{BasicSweeper.__qualname__}"


class Stopped(BaseException):
    """Ends the whole sweep; no Exception, because Hydra would take that for the end of one job."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Plan:
    """What a job must know, in whatever process it runs."""

    options: Options
    total: int | None  # jobs; None where an optimizer decides
    raises: bool  # whether the sweeper wants to see a job fail


def main(overrides: Sequence[str], options: Options) -> int:
    """Runs the sweep that the words describe, prints its table, and returns the first failure's exit code.

    Raises:
        ConfigError: a word or a value that is wrong in any job; nothing has been written then.
    """
    words = prepare("train", overrides, multirun=True)
    first = _first_job(words)
    master = compose_raw("train", first)
    grid = _expand(words, master)
    configs = _check_all(grid or [first])
    folder = _make_folder(master, configs[0])
    plan = Plan(replace(options, sweep_dir=str(folder)), len(grid) if grid is not None else None, grid is None)
    code = EXIT_OK
    try:
        with _on_terminate():
            _launch(words, first, folder, plan)
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except Stopped as stopped:
        code = stopped.exit_code
    except Exception as error:
        if as_user_error(error) is None or isinstance(error, ConfigError):
            raise
        code = report(error)
    rows = collect(folder, grid)
    finish(folder, rows, options)
    if code:
        say("stopped; the same command again skips the jobs that are complete and resumes the others")
    return code or next((row["code"] for row in rows if row["status"] == "failed"), EXIT_OK)


# which jobs there are


def _first_job(words: Sequence[str]) -> list[str]:
    """The words of a job that has the first value of everything that is swept."""
    with config_loader() as loader:
        try:
            parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(words))
            return [_first_value(override) for override in parsed]
        except HydraException as error:
            raise ConfigError(" ".join(str(error).split()), "write key=value1,value2") from error


def _first_value(override: Override) -> str:
    if not override.is_sweep_override():
        return str(override.input_line)
    if override.is_discrete_sweep():
        value = next(iter(override.sweep_string_iterator()), None)
        if value is None:
            raise ConfigError(f"{override.input_line} has no value", "name at least one")
    else:
        interval = override.value()
        assert isinstance(interval, IntervalSweep)
        value = str(interval.start)
    return f"{override.get_key_element()}={value}"


def _expand(words: Sequence[str], master: DictConfig) -> list[list[str]] | None:
    """The words of every job of a grid; None where the sweeper is not Hydra's basic one and decides as it goes."""
    sweeper = master.hydra.sweeper
    params = [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()]
    if any(word.startswith("hydra") for word in params):
        raise ConfigError("hydra.sweeper.params sweeps over Hydra's own settings", "sweep over other keys")
    if sweeper._target_ != _BASIC:
        return None
    task = [word for word in words if not word.startswith("hydra")]
    with config_loader() as loader:
        parsed = OverridesParser.create(config_loader=loader).parse_overrides([*params, *task])
    try:
        return list(BasicSweeper.split_arguments(parsed, None)[0])
    except HydraException:
        interval = next(word.input_line for word in parsed if word.is_sweep_override() and not word.is_discrete_sweep())
        raise ConfigError(
            f"{interval} is not a list of values, and a grid needs one",
            "let an optimizer choose, with hydra/sweeper=optuna (pip install 'aigc-cli[sweep]')",
        ) from None


def _check_all(jobs: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """The configuration of every job, fully checked, so that no hours are spent on the first before the last fails."""
    from aigc_cli.training.build import check_config  # torch

    common = common_words(jobs)
    configs = []
    for job in jobs:
        try:
            config = plain("train", compose_raw("train", job))
            check_config(config)
            if config["model"]["init_from"] == "latest":
                what = "model.init_from=latest is another run after every job"
                raise ConfigError(what, "name the run; see `aigc ls runs`")
        except ConfigError as error:
            own = " ".join(word for word in job if word not in common)
            where = f"in the job {own}: " if len(jobs) > 1 else ""
            raise ConfigError(f"{where}{error.message}", error.hint) from error
        configs.append(config)
    run_dir = configs[0]["run_dir"]
    if run_dir is not None and len(configs) > 1 and all(config["run_dir"] == run_dir for config in configs):
        hint = "leave run_dir out, and name the folder of all runs with outputs="
        raise ConfigError(f"{len(configs)} jobs cannot share run_dir={run_dir}", hint)
    return configs


def _make_folder(master: DictConfig, config: Mapping[str, Any]) -> Path:
    """The sweep's own folder: ``hydra.sweep.dir`` where the user gave one, else ``<outputs>/sweeps/<stamp>``."""
    from aigc_cli.runs import stamped_folder

    if _gives(master.hydra.overrides.hydra, "hydra.sweep.dir"):
        folder = path_of(str(master.hydra.sweep.dir)).absolute()
    else:
        folder = stamped_folder(path_of(Path(config["outputs"], "sweeps")).absolute())
    with resource_errors(folder):
        (folder / "jobs").mkdir(parents=True, exist_ok=True)
        for row in (folder / "jobs").glob("*.json"):
            row.unlink()  # of an earlier sweep in the same folder
    return folder


# running them


class _AuditingLoader(Loader):
    """Looks at every job's configuration before Hydra acts on its own part of it, also where an optimizer chose."""

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        config = super().load_sweep_config(master_config, sweep_overrides)
        audit(config)
        return config


def _launch(words: Sequence[str], first: Sequence[str], folder: Path, plan: Plan) -> None:
    """Hands the sweep to Hydra's sweeper and launcher."""
    own = [f"hydra.sweep.dir={quote(str(folder))}", "hydra.sweep.subdir=."]
    task = [word for word in words if not word.startswith("hydra")]
    with config_loader() as loader:
        # Hydra would compose the sweep without the words that are swept over, and so refuse keys that only some of the
        # swept models have. What the sweeper needs to see of those words is their text.
        master = loader.load_configuration("train", [*first, *QUIET, *own], RunMode.MULTIRUN, from_shell=False)
        with read_write(master.hydra), open_dict(master.hydra):
            master.hydra.overrides.task = task
            if "max_failure_rate" in master.hydra.sweeper and not _gives(words, "hydra.sweeper.max_failure_rate"):
                master.hydra.sweeper.max_failure_rate = 1.0  # a job that fails does not keep the others from running
        context = HydraContext(_AuditingLoader(loader.get_search_path()), Callbacks(None))
        try:
            sweeper = Plugins.instance().instantiate_sweeper(
                config=master, hydra_context=context, task_function=functools.partial(_job, plan)
            )
            sweeper.sweep(arguments=task)
        except HydraException as error:
            raise ConfigError(" ".join(str(error).split()), "check the words that begin with hydra") from error
        except ValueError:
            if not any(row["status"] == "failed" for row in read_rows(folder)):
                raise  # otherwise the optimizer complains that no trial succeeded, which the table says better


def _gives(words: Sequence[str], key: str) -> bool:
    return any(word.startswith(f"{key}=") for word in words)


def _job(plan: Plan, config: DictConfig) -> float | None:
    """One job; its row says how it went. Hydra calls it in this process or in another."""
    from aigc_cli.commands.train import run_training, settled
    from aigc_cli.runs import find_by_identity

    hydra = HydraConfig.get()
    number, words = int(hydra.job.num), list(map(str, hydra.overrides.task))
    row = new_row(number, words, "failed")
    values: dict[str, Any] = {}
    say(f"job {number + 1}{f' of {plan.total}' if plan.total else ''}: {' '.join(words)}")
    try:
        for module in plan.options.plugins:
            import_plugin(module)
        values = settled(plain("train", config))
        options = replace(plan.options, overrides=tuple(words), job=number, recipe=recipes(words))
        result = run_training(values, options)
        row |= {"status": result.status, "run": str(result.run.path.absolute()), "figures": result.figures}
        return result.objective
    except (KeyboardInterrupt, Interrupted, Terminated) as error:
        code = EXIT_TERMINATED if isinstance(error, Terminated) else EXIT_INTERRUPTED
        row |= {"status": "stopped", "code": code, "message": str(error)}
        if str(error):
            say(str(error))
        raise Stopped(code) from None
    except Exception as error:
        row |= {"code": report(error, prefix=f"job {number + 1}: "), "message": " ".join(str(error).split())}
        if plan.raises:
            raise
        return None
    finally:
        if values and not row["run"] and (left := find_by_identity(values)) is not None:
            row["run"] = str(left.path.absolute())
        write_json(Path(str(plan.options.sweep_dir), "jobs", f"{number}.json"), row)


@contextmanager
def _on_terminate() -> Iterator[None]:
    """SIGTERM between jobs, or while other processes run them, ends the sweep with its table."""

    def stop(signum: int, frame: object) -> None:
        raise Stopped(EXIT_TERMINATED)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
