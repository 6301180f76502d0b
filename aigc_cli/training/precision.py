"""Number formats: autocast, and loss scaling for fp16 (Micikevicius et al., Mixed Precision Training, 2018)."""

from __future__ import annotations

from typing import Literal

import torch

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
    """Autocast for forward passes and, for fp16, one loss scaler for all optimizers."""

    def __init__(self, name: PrecisionName, device: torch.device) -> None:
        self.name = resolve_precision(name, device)
        self.device = device
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.name == "fp16")

    def autocast(self) -> torch.autocast:
        """The context of a forward pass."""
        dtype = _DTYPES.get(self.name)
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)

    def skipped(self) -> bool:
        """Ends a step: whether an fp16 overflow made the scaler leave out an update of it."""
        if not self.scaler.is_enabled():
            return False
        before = self.scaler.get_scale()
        self.scaler.update()
        return self.scaler.get_scale() < before
