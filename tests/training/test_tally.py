import math

import pytest
import torch

from aigc_cli.errors import NonFiniteError
from aigc_cli.training.tally import Tally


def test_tally_gives_means_and_starts_afresh():
    tally = Tally()
    for value in (1.0, 3.0):
        tally.add("main", 0, {"loss": torch.tensor(value)})
    tally.add("main", 1, {"loss": torch.tensor(5.0), "penalty": torch.tensor(7.0)})
    assert tally.read() == {"main/loss": 3.0, "main/penalty": 7.0}
    assert tally.read() == {}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_tally_names_the_first_step_and_term(value):
    tally = Tally()
    tally.add("main", 3, {"loss": torch.tensor(1.0), "kl": torch.tensor(1.0)})
    tally.add("main", 4, {"loss": torch.tensor(1.0), "kl": torch.tensor(value)})
    tally.add("main", 5, {"loss": torch.tensor(value), "kl": torch.tensor(value)})
    with pytest.raises(NonFiniteError, match="step 4: main/kl is not finite"):
        tally.check()
