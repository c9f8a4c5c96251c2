"""Layers whose vectors say little of what was read are found, and layers are named."""

import numpy as np
import pytest

from jaxalign.models import zoo
from jaxalign.stages.extract import alike
from jaxalign.stages.extract.plan import describe_layers


def test_vectors_of_one_direction_are_counted(caplog):
    rng = np.random.default_rng(0)
    plain = rng.standard_normal((20, 8)).astype(np.float32)
    sink, two = plain.copy(), plain.copy()
    sink[:, 3] += 1000
    two[:2, 3] += 1000
    texts = [f"word {i}" for i in range(20)]
    found = alike.count([plain, sink, two], texts)
    assert found == {1: 20}
    # The same text is to have the same vector, and few texts prove nothing.
    assert alike.count([sink], ["word"] * 20) == {}
    with caplog.at_level("WARNING", logger="absl"):
        alike.warn("net", found, 20)
    assert "20 of 20 different texts" in caplog.text and "in layers 1)" in caplog.text


@pytest.mark.parametrize(
    "name, tap, names, normed",
    [
        (
            "flan-t5-small",
            "residual",
            {1: "encoder.1", 8: "encoder.8", 16: "decoder.8"},
            [8, 16],
        ),
        ("opt-350m", "residual", {24: "block.24 before the projection to 512 units"}, []),
        ("gpt2-small", "residual", {0: "embedding", 12: "block.12"}, [12]),
        ("gpt2-small", "mlp", {12: "block.12"}, []),
    ],
)
def test_layers_have_names(name, tap, names, normed):
    _, config = zoo.describe(name)
    found = describe_layers(config, tap)
    assert len(found["layer_names"]) == config.num_layers + 1
    assert {i: found["layer_names"][i] for i in names} == names
    assert found["normed_layers"] == normed
