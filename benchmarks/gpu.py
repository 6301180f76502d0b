"""What a GPU makes of the house: speed, idle time, memory and utilisation of every family, and how far recipes get.

    python benchmarks/gpu.py --data data --out gpu
    python benchmarks/gpu.py --data data --sections throughput,decoder
    python benchmarks/gpu.py --data data --sections multi30k+cifar+smoke --seconds 300
    python benchmarks/gpu.py --tiny --device cpu

It needs the packages, and of the house no more than PYTHONPATH at the checkout. `--data` holds cifar10/, shakespeare/
and multi30k/ as `data.root=` takes them.

Sections (each in a process of its own, which a failure or its time limit ends without ending the others):

- throughput: a step of each family, ours and a plain loop's, with the share of time that the GPU idles.
- decoder: 124 million weights at context 1,024 in bf16, with model FLOP utilisation.
- shakespeare: experiment=shakespeare_char to its end, eager and compiled side by side.
- smoke: each family trained, killed and resumed bit for bit, sampled and measured.
- compiled: a step of some families with trainer.compile=true.
- multi30k, cifar: as far as their recipes get in some minutes.
- sampling: tokens and images a second.

With + between them, sections run side by side: then their seconds tell of a shared GPU. Each result is a line in
rows.jsonl as soon as it is there; gpu.json has them all, with versions, and what became of each section.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from gpu_kit import TAIL, Kit, arguments, environment, rows_of_file, until
from gpu_runs import cifar, multi30k, sampling, shakespeare, smoke
from gpu_steps import compiled, decoder, throughput

from aigc_cli.environment import versions

#: Each section and the seconds that it may take.
SECTIONS: dict[str, tuple[Callable[[Kit], None], float]] = {
    "throughput": (throughput, 170),
    "decoder": (decoder, 130),
    "shakespeare": (shakespeare, 190),
    "smoke": (smoke, 150),
    "compiled": (compiled, 120),
    "multi30k": (multi30k, 290),
    "cifar": (cifar, 240),
    "sampling": (sampling, 60),
}
PLAN = "throughput,decoder,shakespeare,smoke+multi30k+cifar,sampling,compiled"


def run_section(name: str, options: Any, end: float) -> dict[str, Any]:
    """What became of a section that ran in its own process until it ended, or its time did."""
    limit = min(SECTIONS[name][1], until(end))
    began = time.monotonic()
    if limit < 5:
        return {"section": name, "outcome": "no time left", "seconds": 0.0}
    command = [sys.executable, __file__, "--only", name, "--data", options.data, "--out", options.out]
    command += ["--work", options.work, "--device", options.device, "--seconds", limit]
    command += ["--tiny"] if options.tiny else []
    log = options.out / f"{name}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            list(map(str, command)), env=environment(options.work), stdout=file, stderr=file, start_new_session=True
        )
        try:
            code = process.wait(limit)
            outcome = "ended" if code == 0 else f"exit code {code}: {log.read_text(errors='replace')[-TAIL:]}"
        except subprocess.TimeoutExpired:
            outcome = f"stopped after {limit:.0f} s"
        finally:
            kill(process)
    return {"section": name, "outcome": outcome, "seconds": round(time.monotonic() - began, 1)}


def kill(process: subprocess.Popen[bytes]) -> None:
    """Ends a section's process, and those that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def only(name: str, options: Any) -> None:
    """Runs a section in this process."""
    kit = Kit(
        section=name, data=options.data, out=options.out, work=options.work, device=torch.device(options.device),
        tiny=options.tiny, seconds=options.seconds,
    )  # fmt: skip
    SECTIONS[name][0](kit)


def machine(device: str) -> dict[str, Any]:
    """What the figures are of."""
    name = torch.cuda.get_device_name() if device.startswith("cuda") else device
    return {"device": name, "cpus": os.cpu_count(), "cuda": torch.version.cuda, **versions()}


def shown(row: dict[str, Any]) -> str:
    """A row of the table."""
    said = [f"{key}={value}" for key, value in row.items() if key not in ("section", "what")]
    return f"{row['section']:11} {row['what']:34} {'  '.join(said)}"


def main() -> None:
    options = arguments(__doc__).parse_args()
    for key in ("data", "out"):
        setattr(options, key, getattr(options, key).resolve())
    if options.only:
        only(options.only, options)
        return
    end = time.monotonic() + options.seconds
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        options.work = Path(options.work or folder).resolve()
        result: dict[str, Any] = {"machine": machine(options.device), "sections": []}
        for step in (options.sections or PLAN).split(","):
            names = step.split("+")
            with ThreadPoolExecutor(len(names)) as pool:
                result["sections"] += pool.map(lambda name: run_section(name, options, end), names)
            result["rows"] = rows_of_file(options.out / "rows.jsonl")
            (options.out / "gpu.json").write_text(json.dumps(result, indent=1) + "\n")
            for outcome in result["sections"][-len(names) :]:
                print(f"{outcome['section']}: {outcome['outcome']}, {outcome['seconds']} s", flush=True)
    print(json.dumps(result["machine"]))
    print("\n".join(map(shown, result["rows"])))


if __name__ == "__main__":
    main()
