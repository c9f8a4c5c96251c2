"""The package itself: which versions of jax and flax it takes together."""

import importlib.metadata

import pytest

import jaxalign


@pytest.mark.parametrize(
    "jax,flax,taken",
    [
        ("0.11.0", "0.12.8", True),
        ("0.11.1", "0.12.9", False),
        ("0.11.1", "0.12.10", True),
        ("0.12.0rc1", "0.12.12", True),
        ("0.12.0rc1", "0.12.10rc1", False),
        ("0.12.0.dev20261130+abc", "0.12.8", False),
    ],
)
def test_versions_of_jax_and_flax(monkeypatch, jax, flax, taken):
    monkeypatch.setattr(importlib.metadata, "version", {"jax": jax, "flax": flax}.get)
    if taken:
        jaxalign._check_versions()
    else:
        with pytest.raises(ImportError, match=f"found jax {jax[:6]}.* and flax {flax}"):
            jaxalign._check_versions()
