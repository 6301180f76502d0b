"""aigc: train, sample and evaluate generative models from configuration.

From Python: ``aigc_cli.open_run("latest").sample(16)``; see docs/python.md.
"""

from importlib import import_module as _import_module

__version__ = "0.1.0"
#: What is there by name, and where it is: imported when it is first asked for, so that ``import aigc_cli`` stays cheap.
_PLACES = {
    "open_run": "api", "evaluate": "api", "LoadedRun": "api", "Scores": "api", "AigcError": "errors",
    "ConfigError": "errors", "DataError": "errors",
}  # fmt: skip
__all__ = ["__version__", *_PLACES]


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
