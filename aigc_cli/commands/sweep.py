"""``aigc train -m``: a grid of jobs, or an optimizer's trials, each in its own run directory.

Hydra's sweeper says which jobs there are and its launcher where they run, in this process or in others. Every job
leaves a row of its own in the sweep's folder, so that they all come together whatever process they ran in.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
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
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from aigc_cli import errors
from aigc_cli.commands.search import FILE, Search
from aigc_cli.commands.sweep_results import OBJECTIVE, Row, asked_metrics, common, finish
from aigc_cli.commands.sweep_words import plainly
from aigc_cli.config.compose import QUIET, compose_raw, plain, recipes
from aigc_cli.config.folders import modality_of
from aigc_cli.config.grammar import prepare, quote
from aigc_cli.config.loader import config_loader
from aigc_cli.config.schema import Options
from aigc_cli.errors import ConfigError, GivenUp, Interrupted, Terminated
from aigc_cli.files import path_of, resource_errors, write_json
from aigc_cli.locks import writing_alone
from aigc_cli.new_run import stamped_folder
from aigc_cli.registry import import_plugin
from aigc_cli.runs import find_by_identity
from aigc_cli.training.judge import NAME

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
    folder: Path  # where it leaves its row
    total: int | None  # jobs; None where an optimizer decides
    search: str | None = None  # the file of the optimizer's trials
    process: int = field(default_factory=os.getpid)  # the sweep's own
    rows: dict[int, Row] = field(default_factory=dict)  # those of jobs in this process


def main(overrides: Sequence[str], options: Options) -> int:
    """Runs the sweep that the words describe, prints its table, and returns the first failure's exit code.

    Raises:
        ConfigError: a word or a value that is wrong in any job; nothing has been written then.
    """
    words = prepare("train", overrides, multirun=True)
    if options.metric:
        asked_metrics(options.metric)
    first = _first_job(words)
    master = compose_raw("train", first)
    grid, search = _expand(words, master), _search(words, master)
    configs = _check_all(grid or [first])
    if options.metric:
        _check_metrics(options.metric, configs)
    folder = _make_folder(master, configs[0])
    code, before = errors.EXIT_OK, signal.signal(signal.SIGTERM, _stop)
    total = search.count if search is not None else None if grid is None else len(grid)
    plan = Plan(options, folder, total, None if search is None else str(folder / FILE))
    try:
        with _alone(folder):
            _launch(words, first, plan, search)
    except KeyboardInterrupt:
        code = errors.EXIT_INTERRUPTED
    except Stopped as stopped:
        code = stopped.exit_code
    except Exception as error:
        if errors.as_user_error(error) is None or isinstance(error, ConfigError):
            raise
        code = errors.report(error)
    finally:
        signal.signal(signal.SIGTERM, before)
    rows = {row["job"]: row for row in _read_rows(folder)} | plan.rows
    for number, job in enumerate(grid or ()):
        rows.setdefault(number, _new_row(number, job, "not run"))
    ordered = [rows[number] for number in sorted(rows)]
    objective = configs[0]["sweep"]["objective"] or (OBJECTIVE if grid is None else None)
    ended = finish(folder, ordered, options, objective, path_of(configs[0]["outputs"]), stopped=bool(code))
    if code:
        errors.say("stopped; the same command again skips the jobs that are complete and resumes the others")
    return code or next((row["code"] for row in ordered if row["code"]), ended)


def _stop(signum: int, frame: object) -> None:
    """SIGTERM between jobs, or while other processes run them, ends the sweep with its table."""
    raise Stopped(errors.EXIT_TERMINATED)


# which jobs there are


def _first_job(words: Sequence[str]) -> list[str]:
    """The words of a job that has the first value of everything that is swept."""
    try:
        return [_first_value(override) for override in _parsed(words)]
    except HydraException as error:
        raise ConfigError(" ".join(str(error).split()), "write key=value1,value2") from error


def _parsed(words: Sequence[str]) -> list[Override]:
    return OverridesParser.create(config_loader=config_loader()).parse_overrides(list(words))


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


def _task(words: Sequence[str]) -> list[str]:
    """The words that are ours, not Hydra's."""
    return [word for word in words if not word.startswith("hydra")]


def _expand(words: Sequence[str], master: DictConfig) -> list[list[str]] | None:
    """The words of every job of a grid; None where the sweeper is not Hydra's basic one and decides as it goes."""
    sweeper = master.hydra.sweeper
    params = [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()]
    if len(_task(params)) < len(params):
        raise ConfigError("hydra.sweeper.params sweeps over Hydra's own settings", "sweep over other keys")
    if sweeper.get("_target_") != _BASIC:
        return None
    parsed = _parsed([*params, *_task(words)])
    try:
        return list(BasicSweeper.split_arguments(parsed, None)[0])
    except HydraException:
        interval = next(word.input_line for word in parsed if word.is_sweep_override() and not word.is_discrete_sweep())
        raise ConfigError(
            f"{interval} is not a list of values, and a grid needs one",
            "let an optimizer choose, with hydra/sweeper=optuna (pip install 'aigc-cli[sweep]')",
        ) from None


def _search(words: Sequence[str], master: DictConfig) -> Search | None:
    """The search that ``hydra/sweeper=optuna`` asks for."""
    section: dict[str, Any] = OmegaConf.to_container(master.hydra.sweeper, resolve=True)  # type: ignore[assignment]
    if section.get("name") != NAME:
        return None
    params = [f"{key}={value}" for key, value in (section.get("params") or {}).items()]
    return Search(section, _parsed([*params, *_task(words)]))


def _check_all(jobs: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """The configuration of every job, fully checked, so that no hours are spent on the first before the last fails."""
    from aigc_cli.training.build import check_config  # torch, which words that are refused do not wait for

    shared, configs = common(jobs), []
    for job in jobs:
        try:
            config = plain("train", compose_raw("train", job))
            check_config(config)
            for section, key in (("model", "init_from"), ("data", "tokens"), ("data", "latents")):
                if config[section].get(key) == "latest":
                    what = f"{section}.{key}=latest may be another run after every job"
                    raise ConfigError(what, "name the run; see `aigc ls runs`")
        except ConfigError as error:
            own = " ".join(word for word in job if word not in shared)
            where = f"in the job {own}: " if len(jobs) > 1 else ""
            raise ConfigError(f"{where}{error.message}", error.hint) from error
        configs.append(config)
    run_dir = configs[0]["run_dir"]
    if run_dir is not None and len(configs) > 1 and all(config["run_dir"] == run_dir for config in configs):
        hint = "leave run_dir out, and name the folder of all runs with outputs="
        raise ConfigError(f"{len(configs)} jobs cannot share run_dir={run_dir}", hint)
    return configs


def _check_metrics(metrics: Sequence[str], configs: Sequence[Mapping[str, Any]]) -> None:
    """Raises a :class:`ConfigError` for a metric that does not measure what a model of `configs` makes."""
    from aigc_cli.metrics.base import kind_of
    from aigc_cli.metrics.run_subject import RunSubject
    from aigc_cli.metrics.text_subject import TextSubject
    from aigc_cli.modalities.base import modality
    from aigc_cli.sampling.controls import model_class

    config, _ = asked_metrics(metrics)
    for job in configs:
        made, name = modality_of(job["data"]["name"]), job["model"]["name"]
        subject = TextSubject if made and modality(made).axes == ("tokens",) else RunSubject
        for metric in config["metric"]:
            kind = kind_of(metric)
            views = {view for some in kind.takes.values() for view in some}
            if (made and not views <= subject.offers) or not kind.needs <= model_class(name).can:
                what = f"{metric} does not measure what model={name} makes"
                raise ConfigError(what, "`aigc ls metrics` lists the others")


def _make_folder(master: DictConfig, config: Mapping[str, Any]) -> Path:
    """The sweep's own folder: ``hydra.sweep.dir`` where the user gave one, else ``<outputs>/sweeps/<stamp>``."""
    if _gives(master.hydra.overrides.hydra, "hydra.sweep.dir"):
        return path_of(str(master.hydra.sweep.dir)).absolute()
    return stamped_folder(path_of(Path(config["outputs"], "sweeps")).absolute())


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """A sweep's folder is there, without rows of an earlier one, and no other sweep writes to it meanwhile."""
    with ExitStack() as stack:
        with resource_errors(folder, "with hydra.sweep.dir= or outputs="):
            stack.enter_context(writing_alone(folder / "jobs", "with hydra.sweep.dir="))
            (folder / "jobs").mkdir(exist_ok=True)
            for row in (folder / "jobs").glob("*.json"):
                row.unlink()
        yield


def _gives(words: Sequence[str], key: str) -> bool:
    return any(word.startswith(f"{key}=") for word in words)


# running them


def _launch(words: Sequence[str], first: Sequence[str], plan: Plan, search: Search | None) -> None:
    """Hands the sweep to Hydra's sweeper and launcher."""
    own, loader = [f"hydra.sweep.dir={quote(str(plan.folder))}", "hydra.sweep.subdir=."], config_loader()
    # Without the words that vary, the composed one would refuse keys that only some models have; it needs their text.
    master = loader.load_configuration("train", [*first, *QUIET, *own], RunMode.MULTIRUN, from_shell=False)
    with read_write(master.hydra), open_dict(master.hydra):
        master.hydra.overrides.task = _task(words)
    for name in ("hydra", "hydra_plugins"):  # what they log of a job that failed has been said
        logging.getLogger(name).addHandler(logging.NullHandler())
    parts: Any = {"config": master, "hydra_context": HydraContext(loader, Callbacks(None))}
    try:
        plugins, parts["task_function"] = Plugins.instance(), functools.partial(_job, plan)
        if search is not None:
            search.run(plugins.instantiate_launcher(**parts), plan.folder, master.hydra.launcher.get("n_jobs"))
        else:
            sweeper = plugins.instantiate_sweeper(**parts)
            vars(sweeper)["validate_batch_is_legal"] = bool  # _check_all has composed every one of them
            sweeper.sweep(arguments=_task(words))
    except HydraException as error:
        raise ConfigError(" ".join(str(error).split()), "check the words that begin with hydra") from error


def _job(plan: Plan, config: DictConfig) -> float | None:
    """One job; its row says how it went. Hydra calls it in this process or in another."""
    from aigc_cli.commands import train
    from aigc_cli.threads import watch
    from aigc_cli.training.signals import end_with_parent

    watch()
    hydra = HydraConfig.get()
    number, words = int(hydra.job.num), list(map(str, hydra.overrides.task))
    row = _new_row(number, words, "failed")
    values: dict[str, Any] = {}
    errors.say(f"job {number + 1}{f' of {plan.total}' if plan.total else ''}{': ' if words else ''}{plainly(words)}")
    if os.getppid() == plan.process:
        end_with_parent()
    try:
        for module in plan.options.plugins:
            import_plugin(module)
        values = train.settled(plain("train", config), plan.options)
        options = replace(plan.options, job=number, search=plan.search, recipe=recipes(words))
        result = train.run_training(values, options)
        row |= {"status": result.status, "run": str(result.run.path.absolute()), "figures": result.figures,
                "objective": result.objective}  # fmt: skip
        return result.objective
    except GivenUp as error:
        row["status"] = "pruned"
        errors.say(error.message)
        return None
    except (KeyboardInterrupt, Interrupted, Terminated) as error:
        code = errors.EXIT_TERMINATED if isinstance(error, Terminated) else errors.EXIT_INTERRUPTED
        row |= {"status": "stopped", "code": code, "message": str(error)}
        if str(error):
            errors.say(str(error))
        raise Stopped(code) from None
    except Exception as error:
        row |= {"code": errors.report(error, prefix=f"job {number + 1}: "), "message": " ".join(str(error).split())}
        return None
    finally:
        if values and not row["run"] and (left := find_by_identity(values)) is not None:
            row["run"] = str(left.path.absolute())
        plan.rows[number] = row
        try:
            write_json(plan.folder / "jobs" / f"{number}.json", row)
        except OSError as error:  # the table has it all the same, where the job ran in the sweep's own process
            errors.warn(f"the row of job {number + 1} could not be kept: {error.strerror}")


# what came of them


def _new_row(number: int, words: Sequence[str], status: str) -> Row:
    """What is known of a job before it has run; `number` counts from 0."""
    return {"job": number, "overrides": list(words), "status": status, "code": errors.EXIT_OK,
            "run": "", "figures": {}, "objective": None, "message": ""}  # fmt: skip


def _read_rows(folder: Path) -> list[Row]:
    """The rows that jobs have left in a sweep's folder so far."""
    return [json.loads(path.read_text()) for path in (folder / "jobs").glob("*.json")]
