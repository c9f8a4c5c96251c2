"""Strict dtype promotion: in core, mixing widths is always a mistake."""

import jax
import jaxtyping
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def strict_promotion():
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture
def unchecked():
    """Turn jaxtyping off, to reach a check that an annotation makes earlier in tests."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def blocks():
    """Cut 4000 samples into four test blocks."""
    return np.split(np.arange(4000), 4)
