"""What a run or a score was made with: versions of packages, the machine, the state of git."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

_RECORDED = (
    "aigc-cli", "torch", "torchvision", "torchmetrics", "torch-fidelity", "hydra-core", "numpy", "safetensors",
    "tokenizers", "pillow",
)  # fmt: skip


def versions() -> dict[str, str]:
    """The versions of the packages that scores may depend on."""
    found = {}
    for package in _RECORDED:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def environment() -> dict[str, Any]:
    """Versions, machine and git state, for ``env.json``."""
    import torch

    git = None
    with suppress(OSError, subprocess.SubprocessError):
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"], capture_output=True, text=True, timeout=5
        )
        git = described.stdout.strip() or None
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "versions": versions(),
        "git": git,
    }
