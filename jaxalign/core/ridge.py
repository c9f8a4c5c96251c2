"""Closed-form ridge: factorise a training set once, then sweep penalties over all targets."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

Form = Literal["primal", "dual"]

# A feature counts as constant when its training spread is below this fraction of the typical
# spread, or of its own mean. Scaling such a feature to unit variance would turn rounding into a
# signal (all-MiniLM-L6-v2 has output units near 1e-33 on ordinary sentences).
CONSTANT_TOLERANCE = 1e-6


class Design(NamedTuple):
    """A training set in the basis in which every penalty is a division.

    With w = basisᵀ (Y - mean Y), the prediction for all samples is
    mean Y + loadings (w / (spectrum + alpha)).
    """

    spectrum: Float[Array, " r"]  # eigenvalues of the centred training kernel or covariance
    basis: Float[Array, "R r"]  # rows are training samples
    loadings: Float[Array, "n r"]  # rows are all samples
    num_constant: Int[Array, ""]  # features that do not vary over the training set


def choose_form(num_train: int, num_features: int) -> Form:
    """Return which of the two equal forms has the smaller eigenproblem."""
    return "primal" if num_features < num_train else "dual"


def factorize(
    X: Float[np.ndarray, "n p"],
    train: Int[np.ndarray, " R"],
    train_mask: Bool[np.ndarray, " R"],
    *,
    standardize: bool,
    form: Form,
) -> Design:
    """Centre, scale and rotate the features of one training set, in float64.

    Primal: ZᵀZ = Q S Qᵀ, basis = Z Q, loadings = Z_all Q. Dual: ZZᵀ = Q S Qᵀ, basis = Q,
    loadings = Z_all Zᵀ Q. Z holds the training rows, centred by their own mean and, on request,
    divided by their own standard deviation; no other row is looked at.

    Args:
      X: features of all samples.
      train: indices of the training samples, padded to a common length.
      train_mask: False for the padding.
      standardize: scale each feature to unit variance over the training set.
      form: see `choose_form`.

    Source: Saunders et al. (1998), Ridge regression in dual variables, section 2.
    """
    with jax.enable_x64(True):
        design = _factorize(
            jnp.asarray(X, jnp.float64),
            jnp.asarray(train),
            jnp.asarray(train_mask),
            standardize=standardize,
            form=form,
        )
    return design


@jax.jit(static_argnames=("standardize", "form"))
@jax.default_matmul_precision("highest")
def _factorize(X, train, train_mask, *, standardize, form):
    keep = train_mask.astype(X.dtype)[:, None]
    count = keep.sum()
    rows = X[train]
    mean = (rows * keep).sum(axis=0) / count
    sd = jnp.sqrt((((rows - mean[None]) * keep) ** 2).sum(axis=0) / count)
    # The median does not follow a few features of another order of magnitude.
    typical = jnp.nanmedian(jnp.where(sd > 0, sd, jnp.nan))
    typical = jnp.where(jnp.isnan(typical), 0.0, typical)
    constant = sd <= CONSTANT_TOLERANCE * jnp.maximum(jnp.abs(mean), typical)
    scale = jnp.where(constant, 0.0, 1 / jnp.where(constant, 1.0, sd) if standardize else 1.0)
    everything = (X - mean[None]) * scale[None]
    Z = everything[train] * keep
    if form == "primal":
        spectrum, Q = jnp.linalg.eigh(Z.T @ Z)
        basis, loadings = Z @ Q, everything @ Q
    else:
        spectrum, Q = jnp.linalg.eigh(Z @ Z.T)
        basis, loadings = Q, everything @ (Z.T @ Q)
    # Rounding makes some of the zero eigenvalues negative.
    spectrum = jnp.maximum(spectrum, 0.0)
    narrow = lambda x: x.astype(jnp.float32)
    return Design(narrow(spectrum), narrow(basis), narrow(loadings), constant.sum())


@jax.jit
@jax.default_matmul_precision("highest")
def rotate(
    design: Design,
    Y: Float[Array, "n v"],
    train: Int[Array, " R"],
    train_mask: Bool[Array, " R"],
) -> tuple[Float[Array, "r v"], Float[Array, " v"]]:
    """Return the rotated, centred training responses and their mean.

    Args:
      design: from `factorize` on the same training set.
      Y: responses of all samples.
      train: indices of the training samples, padded.
      train_mask: False for the padding.
    """
    keep = train_mask.astype(Y.dtype)[:, None]
    rows = Y[train]
    mean = (rows * keep).sum(axis=0) / keep.sum()
    return design.basis.T @ ((rows - mean[None]) * keep), mean


@jax.jit
@jax.default_matmul_precision("highest")
def predict(
    design: Design,
    rotated: Float[Array, "r v"],
    samples: Int[Array, " T"],
    alphas: Float[Array, " v"],
) -> Float[Array, "T v"]:
    """Predict the responses to some samples, each target with a penalty of its own.

    The intercept is left out: added to the small slopes that large penalties give, it would take
    their digits.

    Args:
      design: from `factorize`.
      rotated: from `rotate`.
      samples: indices of the samples to predict.
      alphas: penalties, positive, in units of squared (scaled) feature.

    Returns:
      Predicted deviations from the training mean.
    """
    return design.loadings[samples] @ (rotated / (design.spectrum[:, None] + alphas[None]))


@jax.jit
@jax.default_matmul_precision("highest")
def squared_errors(
    design: Design,
    rotated: Float[Array, "r v"],
    mean: Float[Array, " v"],
    Y: Float[Array, "n v"],
    samples: Int[Array, " T"],
    sample_mask: Bool[Array, " T"],
    alphas: Float[Array, " a"],
) -> tuple[Float[Array, "a v"], Float[Array, " v"]]:
    """Mean squared error on held-out samples for each penalty, and without any feature.

    Args:
      design: from `factorize`.
      rotated: from `rotate`.
      mean: from `rotate`; the intercept.
      Y: responses of all samples.
      samples: indices of the held-out samples, padded.
      sample_mask: False for the padding.
      alphas: penalties, positive.

    Returns:
      Errors of the ridge, and errors of predicting the training mean.
    """
    keep = sample_mask.astype(Y.dtype)[:, None]
    count = keep.sum()
    residual = (Y[samples] - mean[None]) * keep
    loadings = design.loadings[samples] * keep

    def error(alpha):
        fitted = loadings @ (rotated / (design.spectrum[:, None] + alpha))
        return ((residual - fitted) ** 2).sum(axis=0) / count

    return jax.lax.map(error, alphas), (residual**2).sum(axis=0) / count
