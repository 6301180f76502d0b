import numpy as np
import pytest
import torch

from aigc_cli.randomness import Noise, derive, generator, permutation, seed_step


def test_derive_is_fixed_across_processes_and_versions() -> None:
    assert derive("step", 0, 0, 0) == 2631477829001902122
    assert 0 <= derive("x") < 2**63


def test_keys_do_not_run_into_each_other() -> None:
    keys = [("step", 1, 11), ("step", 11, 1), ("step", 111), ("step", 1, 1, 1), ("order", 1, 11), ("step1", 11)]
    assert len({derive(*key) for key in keys}) == len(keys)


def test_permutation_is_a_function_of_its_key() -> None:
    first = permutation(1000, "order", 0, 0)
    assert np.array_equal(first, permutation(1000, "order", 0, 0))
    assert sorted(first) == list(range(1000))
    assert not np.array_equal(first, permutation(1000, "order", 0, 1))


def test_seed_step_makes_a_step_repeat() -> None:
    draws = []
    for step in (4, 5, 4):
        seed_step(0, 0, step)
        draws.append(torch.randn(8))
    assert torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[1])
    seed_step(0, 1, 4)
    assert not torch.equal(torch.randn(8), draws[0])


@pytest.mark.parametrize("draw", ["normal", "uniform"])
def test_a_row_depends_on_its_seed_and_index_alone(draw: str) -> None:
    def rows(indices: list[int], seed: int = 0) -> torch.Tensor:
        noise = Noise(seed, indices)
        return torch.stack([getattr(noise, draw)(3) for _ in range(2)], dim=1)

    whole = rows([0, 1, 2, 3, 4])
    assert torch.equal(rows([3]), whole[3:4])
    assert torch.equal(rows([4, 0]), whole[[4, 0]])
    assert not torch.equal(whole[:, 0], whole[:, 1])  # a second draw goes on
    assert not torch.equal(rows([0], seed=1), whole[:1])


def test_noise_has_the_shapes_types_and_moments_it_says() -> None:
    noise = Noise(0, range(2000))
    normal, uniform = noise.normal(4, 2), noise.uniform(8)
    assert len(noise) == 2000
    assert (normal.shape, normal.dtype) == ((2000, 4, 2), torch.float32)
    assert (uniform.shape, uniform.dtype) == ((2000, 8), torch.float32)
    assert normal.mean().abs() < 0.03
    assert normal.std().sub(1).abs() < 0.03
    assert 0 <= uniform.min() <= uniform.max() < 1
    assert uniform.mean().sub(0.5).abs() < 0.01
    neighbours = torch.corrcoef(torch.stack([normal[:-1].flatten(), normal[1:].flatten()]))[0, 1]
    assert neighbours.abs() < 0.03


def test_streams_of_different_purposes_differ() -> None:
    assert not np.allclose(generator("sample", 0, 0).random(8), generator("augment", 0, 0).random(8))
