"""AdamW with clipping, and a learning rate that rises and falls, as in the recipe of Alpaca."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import optax

from jaxalign.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of the optimiser; the defaults are those of Alpaca for LLaMA-7B.

    The learning rate rises from 0 in `warmup` steps, and falls to 0 along a half cosine. As the
    rate of the first step is 0, that step changes nothing; the authors' does not either.

    Attributes:
      num_steps: of the whole training.
      learning_rate: the highest. 0 only where it is meant: see `arms.Arm.trains`.
      warmup_ratio: steps in which it rises, as a share of all, rounded up.
      beta1, beta2, epsilon: of Adam.
      weight_decay: decoupled, times the learning rate.
      clip_norm: norm of the gradient at most; 0: any.

    Source: tatsu-lab/stanford_alpaca (commit 761dc5b), README.md and train.py; what it leaves to
      the defaults of transformers' Trainer: betas, epsilon, clipping; Loshchilov and Hutter (2019),
      arXiv 1711.05101.
    """

    num_steps: int
    learning_rate: float = 2e-5
    warmup_ratio: float = 0.03
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float = 1.0

    def __post_init__(self):
        if self.num_steps < 1:
            raise InputError(f"tuning must have at least one step, got {self.num_steps}.")
        if not 0 <= self.learning_rate < math.inf:
            raise InputError(f"learning_rate must not be negative, got {self.learning_rate}.")
        if not 0 <= self.warmup_ratio <= 1:
            raise InputError(f"warmup_ratio must be between 0 and 1, got {self.warmup_ratio}.")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} must be from 0 to below 1, got {getattr(self, name)}.")
        for name in ("weight_decay", "clip_norm"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} must not be negative, got {getattr(self, name)}.")
        if not 0 < self.epsilon < math.inf:
            raise InputError(f"epsilon must be positive, got {self.epsilon}.")

    def of_arm(self, *, trains: bool) -> "Recipe":
        """Return the recipe of an arm: one that does not train has a learning rate of 0.

        Raises:
          InputError: if an arm trains, and the learning rate is 0.
        """
        if trains and not self.learning_rate:
            raise InputError("learning_rate must be positive, got 0: the arm frozen has 0.")
        return self if trains else dataclasses.replace(self, learning_rate=0.0)

    @property
    def warmup(self) -> int:
        """Steps in which the learning rate rises."""
        return math.ceil(self.num_steps * self.warmup_ratio)

    def schedule(self) -> optax.Schedule:
        """Return the learning rate of each step, from 0 on."""
        if not self.warmup:
            return optax.cosine_decay_schedule(self.learning_rate, self.num_steps)
        if self.warmup >= self.num_steps:  # nothing is left in which it could fall
            return optax.linear_schedule(0.0, self.learning_rate, self.warmup)
        return optax.warmup_cosine_decay_schedule(
            0.0, self.learning_rate, self.warmup, self.num_steps
        )

    def transformation(self) -> optax.GradientTransformation:
        """Return the optimiser."""
        clip = [optax.clip_by_global_norm(self.clip_norm)] if self.clip_norm else []
        decay = [optax.add_decayed_weights(self.weight_decay)] if self.weight_decay else []
        rate = optax.scale_by_learning_rate(self.schedule())
        return optax.chain(*clip, _adam(self.beta1, self.beta2, self.epsilon), *decay, rate)


def _adam(beta1: float, beta2: float, epsilon: float) -> optax.GradientTransformation:
    """Return `optax.scale_by_adam` with corrections for the start that float32 holds.

    1 - .999^t, taken in float32, is off by 1.3e-5 at the first step, so that losses of 50 steps
    drift by 1.5e-5 from those of torch, which takes it in double precision.
    """

    def update(gradients, state: optax.ScaleByAdamState, params=None):
        del params
        count = state.count + 1
        mean = lambda beta, old, new: beta * old + (1 - beta) * new
        mu = jax.tree.map(lambda m, g: mean(beta1, m, g), state.mu, gradients)
        nu = jax.tree.map(lambda n, g: mean(beta2, n, g * g), state.nu, gradients)
        # 1 - beta^count; of 0 it is 1.
        started = lambda beta: -jnp.expm1(count * math.log(beta)) if beta else 1.0
        first, second = started(beta1), started(beta2)
        steps = jax.tree.map(lambda m, n: (m / first) / (jnp.sqrt(n / second) + epsilon), mu, nu)
        return steps, optax.ScaleByAdamState(count=count, mu=mu, nu=nu)

    return optax.GradientTransformation(optax.scale_by_adam(beta1, beta2, epsilon).init, update)
