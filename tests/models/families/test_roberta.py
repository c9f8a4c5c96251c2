"""RoBERTa against Hugging Face's; what BERT and RoBERTa share, and where their positions begin."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from networks import assert_layers_close, run

from jaxalign.core import mesh as mesh_lib
from jaxalign.errors import InputError
from jaxalign.models import readers, zoo
from jaxalign.models.families import base


@pytest.fixture(scope="module")
def model(golden):
    return zoo.find(str(golden / "roberta"), None)


@pytest.fixture(scope="module")
def network(model, mesh):
    return model.load(mesh)


@pytest.fixture(scope="module")
def expected(golden):
    return dict(np.load(golden / "roberta" / "expected.npz"))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(4, 1), (2, 2)], ids=str)
@pytest.mark.parametrize("length", [7, 13])
def test_matches_hugging_face(model, expected, shape, length):
    mesh = mesh_lib.make_mesh(*shape)
    tokens, mask = expected[f"tokens_{length}"], expected[f"mask_{length}"]
    assert mask.all(axis=1).any() and not mask.all()
    padding = [(0, 0), (0, 13 - length)]
    tokens, whole = np.pad(tokens, padding, constant_values=3), np.pad(mask, padding)
    output = run(model.load(mesh), tokens, whole, mesh, taps=base.TAPS)
    for tap, key in {"residual": "hidden", "attention": "attention", "mlp": "mlp"}.items():
        assert_layers_close(output.taps[tap][:, :, :length], expected[f"{key}_{length}"], mask)
    assert output.final is None and model.final_norm_applied is False


def test_padding_tokens_in_the_padding_change_nothing(network, expected, mesh):
    """As a tokenizer pads: positions count tokens, and none of these is one."""
    tokens, mask = expected["tokens_13"], expected["mask_13"]
    output = run(network, np.where(mask, tokens, 1), mask, mesh, taps=base.TAPS)
    assert_layers_close(output.hidden, expected["hidden_13"], mask)


@pytest.mark.slow
def test_padding_tokens_in_a_text_have_no_position_of_their_own(network, mesh):
    """transformers counts the other tokens: by its formula, the rows 2 1 3 1 1 4."""
    tokens = np.array([[5, 1, 6, 1, 1, 7]])
    found = run(network, tokens, np.ones_like(tokens, bool), mesh).hidden[0, 0]
    words, positions, segments = (
        np.asarray(part.table[...])[rows]
        for part, rows in (
            (network.words, tokens[0]),
            (network.positions, [2, 1, 3, 1, 1, 4]),
            (network.segments, [0] * 6),
        )
    )
    expected = network.norm(jnp.asarray(words + positions + segments))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_first_rows_of_the_positions_are_free(model, network):
    """34 rows hold 32 positions behind the padding token's, 1."""
    assert model.config.first_position == 2 and model.config.max_length == 32
    assert network.positions.table[...].shape == (34, 24)


@pytest.mark.slow
def test_untrained_padding_rows_are_zero(model, mesh):
    untrained = model.load(mesh, untrained_seed=1)
    for part in (untrained.words, untrained.positions):
        table = np.asarray(part.table[...])
        np.testing.assert_array_equal(table[1], 0)
        assert (np.abs(table).sum(axis=1) > 0).sum() == len(table) - 1
    rest = nnx.to_flat_state(nnx.state(untrained.blocks))
    assert len(rest) == 16


def test_keys_left_out_are_hugging_faces_defaults(golden):
    hf = json.loads((golden / "roberta" / "config.json").read_text())
    for key in ("layer_norm_eps", "type_vocab_size", "pad_token_id", "initializer_range"):
        hf.pop(key, None)
    config = readers.family("roberta").config_from_hf(hf)
    assert (config.norm_eps, config.num_segments, config.init_sd) == (1e-12, 2, 0.02)
    assert (config.padding_token, config.first_position) == (1, 2)
    config = readers.family("bert").config_from_hf(hf | {"model_type": "bert"})
    assert (config.padding_token, config.first_position, config.max_length) == (0, 0, 34)


def test_roberta_without_a_padding_token_is_refused(copy_golden):
    with pytest.raises(InputError, match="pad_token_id must be set"):
        zoo.find(str(copy_golden("roberta", pad_token_id=None)), None)
