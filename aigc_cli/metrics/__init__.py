"""What is measured, and how."""

import logging
import sys
from importlib.util import find_spec, module_from_spec
from types import ModuleType


class _Bare(ModuleType):
    """A package whose submodules may be imported without what it imports itself, until anything else is asked of it."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__") and name != "__version__":
            raise AttributeError(name)
        self.__class__ = ModuleType  # type: ignore[assignment]
        self.__spec__.loader.exec_module(self)  # type: ignore[union-attr]
        return getattr(self, name)


# Of torchmetrics we need the base class; with the whole come torchvision, transformers and scipy: 3 s and 250 MB.
if "torchmetrics" not in sys.modules and (_spec := find_spec("torchmetrics")) is not None:
    sys.modules["torchmetrics"] = _package = module_from_spec(_spec)
    _package.__class__ = _Bare
    vars(_package)["_logger"] = logging.getLogger("torchmetrics")
