"""Any of torchvision's classification networks, with a file of weights, as an extractor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from aigc_cli.errors import ConfigError, suggest
from aigc_cli.metrics.extractors.base import PlainConfig, Sources
from aigc_cli.metrics.extractors.weights import load_weights, misfit
from aigc_cli.registry import register

_SIDE = 224
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as all of torchvision's weights expect
_HINT = "write for example extractor=torchvision model=resnet50 weights=FILE"


@register("extractor", "torchvision", PlainConfig)
class TorchvisionBackbone:
    """What goes into the network's last linear layer, and its logits; grey images are repeated to RGB."""

    canonical = False

    def __init__(self, config: PlainConfig, sources: Sources) -> None:
        import torchvision

        known = torchvision.models.list_models(module=torchvision.models)
        if sources.backbone is None or sources.weights is None:
            missing = "model=" if sources.backbone is None else "weights="
            raise ConfigError(f"extractor=torchvision needs {missing}", _HINT)
        if sources.backbone not in known:
            raise ConfigError(f"torchvision has no model {sources.backbone!r}", suggest(sources.backbone, known))
        self.checksum, state = load_weights(
            sources.weights, "name a file of weights that torchvision's own model loads"
        )
        network, last = _network(sources.backbone, state)
        self.name = f"{sources.backbone}-{self.checksum[:8]}"
        self.widths: Mapping[str, int] = {"features": last.in_features, "logits": last.out_features}
        self.facts: Mapping[str, Any] = {
            "preprocessing": f"uint8, resized to {_SIDE}x{_SIDE} by bicubic interpolation with antialiasing in float32 "
            "(torch), ImageNet's mean and deviation"
        }
        self._device = sources.device
        self.batch_size = 32 if sources.device.type == "cpu" else 128
        self._network = network.to(sources.device).eval().requires_grad_(False)
        self._features: Tensor | None = None
        last.register_forward_pre_hook(self._catch)

    def _catch(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._features = inputs[0]

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Features of raw uint8 images (n, C, H, W), C 1 or 3."""
        rgb = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        with torch.inference_mode():
            x = rgb.to(self._device).float()
            x = nn.functional.interpolate(x, (_SIDE, _SIDE), mode="bicubic", antialias=True).clamp_(0, 255) / 255
            mean, deviation = (torch.tensor(values, device=x.device)[:, None, None] for values in (_MEAN, _DEVIATION))
            logits = self._network((x - mean) / deviation)
        assert self._features is not None
        features, self._features = self._features, None
        return {"features": features.flatten(1).cpu(), "logits": logits.cpu()}


def _network(name: str, state: Mapping[str, Tensor]) -> tuple[nn.Module, nn.Linear]:
    """The network with its weights, and its last linear layer.

    Raises:
        ConfigError: it ends in none.
        DataError: the weights are not this network's.
    """
    import torchvision

    options: dict[str, Any] = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    blank = torchvision.models.get_model(name, weights=None, **options)
    layers = [(path, layer) for path, layer in blank.named_modules() if isinstance(layer, nn.Linear)]
    if not layers:
        raise ConfigError(f"torchvision's {name} does not end in a linear layer", "choose another model=")
    path, last = layers[-1]
    classes = state[f"{path}.bias"].shape[0] if f"{path}.bias" in state else last.out_features
    if classes != last.out_features:  # trained on other classes than ImageNet's
        blank = torchvision.models.get_model(name, weights=None, num_classes=classes, **options)
        last = dict(blank.named_modules())[path]
    try:
        blank.load_state_dict(state)
    except RuntimeError as error:
        raise misfit(f"torchvision's {name}", error, _HINT) from None
    return blank, last
