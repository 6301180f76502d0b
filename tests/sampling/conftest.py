"""Where the samples of these tests are said to come from."""

from collections.abc import Callable

import pytest

from aigc_cli.modalities.provenance import Provenance

MakeProvenance = Callable[..., Provenance]


@pytest.fixture
def provenance() -> MakeProvenance:
    """Makes the provenance of some samples, with changes."""

    def make(**changes: object) -> Provenance:
        values = {
            "modality": "image", "format": "png", "run": "gan-digits/a", "model": "gan", "data": "digits", "step": 7,
            "model_checksum": "ab" * 32, "seed": 3, "controls": {"truncation": 0.5},
        }  # fmt: skip
        return Provenance(**{**values, **changes})  # type: ignore[arg-type]

    return make
