"""Rarer variants of the families against Hugging Face's networks; see golden/make_variants.py."""

import numpy as np
import pytest
from networks import assert_layers_close, forward

from jaxalign.models import zoo

NAMES = "bert bloom gemma gpt2 gptj llama ministral neox opt t5".split()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_matches_hugging_face(golden, mesh, name):
    folder = golden / "variants" / name
    expected = np.load(folder / "expected.npz")
    tokens, mask = expected["tokens"], np.ones((2, 14), bool)
    model = zoo.find(str(folder), None)
    output = forward(model.load(mesh), tokens, mask)
    assert_layers_close(output.hidden, expected["hidden"], mask)
    assert model.predicts == ("logits" in expected)
    if model.predicts:
        assert_layers_close(output.logits[None], expected["logits"][None], mask)


def test_every_variant_has_a_folder(golden):
    assert sorted(NAMES) == sorted(folder.name for folder in (golden / "variants").iterdir())
