"""Planted responses: participants made from a chosen layer, so that the right answer is known."""

import numpy as np
from jaxtyping import Float

# Units that vary by less than this fraction of the typical unit carry no stimulus.
_CONSTANT = 1e-6


def plant(
    features: Float[np.ndarray, "n u"],
    *,
    num_subjects: int,
    num_targets: int,
    noise_sd: float,
    rng: np.random.Generator,
) -> tuple[Float[np.ndarray, "s n v"], Float[np.ndarray, "n v"]]:
    """Draw responses = signal + noise for participants who share the signal.

    signal = Z W with Z the features scaled to unit variance and W drawn independently from one
    normal distribution for all units, so no direction of the feature space is preferred by the
    weights: in particular not the leading components of this layer or of another. Each column of
    the signal then has unit variance. Noise is independent over participants, samples and targets.

    Args:
      features: one layer's activations.
      num_subjects: participants.
      num_targets: targets of each participant; target j has the same signal in all of them.
      noise_sd: standard deviation of the noise, in units of the signal's. A participant's planted
        ceiling, the correlation of signal and response, is expected at 1 / sqrt(1 + noise_sd²).
      rng: source of all draws.

    Returns:
      Responses per participant, and the noiseless signal.

    Raises:
      ValueError: if no unit varies.
    """
    sd = features.std(axis=0)
    if not sd.any():
        raise ValueError("features must vary: every unit is constant.")
    varies = sd > _CONSTANT * np.sqrt((sd**2).mean())
    Z = (features[:, varies] - features[:, varies].mean(axis=0)) / sd[varies]
    signal = Z @ rng.standard_normal((Z.shape[1], num_targets))
    signal = (signal - signal.mean(axis=0)) / signal.std(axis=0)
    noise = noise_sd * rng.standard_normal((num_subjects, *signal.shape))
    return signal + noise, signal
