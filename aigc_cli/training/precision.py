"""Number formats: autocast, and loss scaling for fp16 (Micikevicius et al., Mixed Precision Training, 2018)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch.optim import Optimizer

from aigc_cli.errors import ConfigError

PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(word: str) -> torch.device:
    """The device that `trainer.device` or `device` names; ``auto`` is a GPU where there is one.

    Raises:
        ConfigError: no such device.
    """
    if word == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(word)
    except RuntimeError:
        raise ConfigError(f"device={word} is not a device", "choose auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device={word} is not supported", "choose auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ConfigError(
            f"device={word}: torch sees {count or 'no'} GPU{'' if count == 1 else 's'} here", "use device=auto or cpu"
        )
    return device


def resolve_precision(name: PrecisionName, device: torch.device) -> str:
    """``auto`` is bf16 on a GPU that computes in it, else fp32."""
    if name != "auto":
        return name
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


class Precision:
    """Autocast for forward passes and, for fp16, a loss scaler for each phase.

    A scaler for each, because a phase may come several times within a step, and each ends with its scaler's update.
    """

    def __init__(self, name: PrecisionName, device: torch.device, phases: Iterable[str] = ()) -> None:
        self.name = resolve_precision(name, device)
        self.device = device
        self.scales = self.name == "fp16"
        self.scalers = {phase: torch.amp.GradScaler(device.type, enabled=self.scales) for phase in phases}

    def autocast(self) -> torch.autocast:
        """The context of a forward pass."""
        dtype = _DTYPES.get(self.name)
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)

    def step(self, phase: str, optimizer: Optimizer) -> bool:
        """Steps the optimizer on unscaled gradients; False where an fp16 overflow made the scaler leave it out."""
        scaler = self.scalers[phase]
        scaler.step(optimizer)
        if not self.scales:
            return True
        before = scaler.get_scale()
        scaler.update()
        return scaler.get_scale() >= before

    def state_dict(self) -> dict[str, Any]:
        """The scalers' state, plain numbers by phase; empty without scaling."""
        return {phase: scaler.state_dict() for phase, scaler in self.scalers.items()} if self.scales else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes the scalers' state from a checkpoint."""
        for phase, scaler in self.scalers.items() if self.scales else ():
            scaler.load_state_dict(state[phase])
