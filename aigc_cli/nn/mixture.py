"""A Gaussian mixture over latents, fitted once a model is trained, to draw from in the place of its prior."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aigc_cli.randomness import Noise

COMPONENTS = 10  # of all latents (Ghosh et al., From Variational to Deterministic Autoencoders, 2020, section 4)
CLASS_COMPONENTS = 3  # of the latents of one class
DIRECTIONS = 128  # principal directions, at most, in which components are told apart
PER_DIRECTION = 4  # items that a full covariance takes for each of its directions
PER_COMPONENT = 20  # items that any component takes
LEAST_VARIANCE = 1e-5  # added to each variance, so that no component shrinks to a point
SEED = 0  # of the fit


@dataclass(frozen=True)
class LatentMixture:
    """A mixture for each class over the leading principal directions of all latents; noise in the other directions. It
    is not in a checkpoint: it is fitted anew from the encoded training set."""

    weights: Tensor  # (classes, m)
    means: Tensor  # (classes, m, k)
    factors: Tensor  # (classes, m, k, k), Cholesky factors of the covariances
    centre: Tensor  # (d,)
    directions: Tensor  # (k, d)
    rest: Tensor  # (d,)

    @classmethod
    def fit(cls, latents: Tensor, labels: Tensor | None = None, classes: int = 0) -> LatentMixture:
        """The distribution of latents (n, d), n at least 2: one mixture for all, or with labels (n,) one for each
        class, of which those without items have the mixture of all."""
        values = latents.double().cpu().numpy()
        centre, directions, rest = _principal(values)
        reduced = (values - centre) @ directions.T
        if labels is None:
            groups = [_fit(reduced, COMPONENTS)]
        else:
            of = labels.cpu().numpy()
            parts = [reduced[of == label] for label in range(classes)]
            groups = [_fit(part if len(part) > 1 else reduced, CLASS_COMPONENTS) for part in parts]
        most = max(len(weights) for weights, _, _ in groups)
        stacks = [np.stack([_padded(array, most) for array in arrays]) for arrays in zip(*groups, strict=True)]
        arrays = [np.ascontiguousarray(array) for array in (*stacks, centre, directions, rest)]
        return cls(*(torch.from_numpy(array).to(latents.device, torch.float32) for array in arrays))

    def sample(self, noise: Noise, temperature: float = 1.0, labels: Tensor | None = None) -> Tensor:
        """Latents (len(noise), d), each from its own row of `noise`, of classes (n,) where there is a mixture for each.
        The temperature scales every component's deviations, not the spread of the components."""
        group = torch.zeros(len(noise), dtype=torch.int64, device=self.weights.device) if labels is None else labels
        below = self.weights.cumsum(1)[group]
        component = (noise.uniform(1) >= below[:, :-1]).sum(1)
        normal = noise.normal(self.means.shape[2])
        own = torch.einsum("nij,nj->ni", self.factors[group, component], normal)
        reduced = self.means[group, component] + temperature * own
        rest = temperature * self.rest * noise.normal(len(self.rest))
        return self.centre + reduced @ self.directions + rest


def _principal(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean (d,), the leading principal directions (k, d), and each dimension's deviation beside them (d,)."""
    from sklearn.decomposition import PCA

    found = PCA(min(*values.shape, DIRECTIONS), random_state=SEED).fit(values)
    explained = (found.explained_variance_[:, None] * found.components_**2).sum(0)
    rest = np.sqrt(np.clip(values.var(0, ddof=1) - explained, 0, None))
    return found.mean_, found.components_, rest


def _fit(values: np.ndarray, components: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights (m,), means (m, k) and Cholesky factors (m, k, k) of m `components`, or fewer for few items (n, k)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    n, k = values.shape
    full = n >= PER_DIRECTION * k
    count = min(components, max(1, n // (PER_DIRECTION * k if full else PER_COMPONENT)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # after so many rounds, good enough to draw from
        found = GaussianMixture(
            count, covariance_type="full" if full else "diag", reg_covar=LEAST_VARIANCE, random_state=SEED
        ).fit(values)
    covariances = found.covariances_ if full else np.stack([np.diag(row) for row in found.covariances_])
    return found.weights_, found.means_, np.linalg.cholesky(covariances)


def _padded(array: np.ndarray, length: int) -> np.ndarray:
    """The array with zeros at its end, a component of weight 0 each."""
    return np.pad(array, [(0, length - len(array)), *[(0, 0)] * (array.ndim - 1)])
