"""One pass over real stories against a pass for each part, for every causal family."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoder_names import NAMES

from jaxalign.data.sets import natural_stories
from jaxalign.data.text import contexts, tokenizer_files
from jaxalign.models import readers, weights, zoo

# Tokenizer, its tokens, and the length of the network; stories are longer.
TOKENIZERS = {"tokenizers_gpt2": (50257, 1024), "stories260K/tok512.bin": (512, 512)}
PARTS_PER_STORY = 3


@pytest.fixture(scope="module")
def stories(data_root):
    """Words of the ten Natural Stories."""
    if not (data_root / natural_stories.FILE).is_file():
        pytest.skip(f"{data_root / natural_stories.FILE} is not there")
    return natural_stories.load(data_root, "word")


@pytest.fixture(scope="module")
def plans(data_root, stories):
    """Passes over the stories, shared and for each part alone, by tokenizer."""
    return {
        name: [
            contexts.plan(
                tokenizer_files.load(data_root / name),
                stories,
                "accumulate:restart",
                max_length=max_length,
                causal=causal,
            )
            for causal in (True, False)
        ]
        for name, (_, max_length) in TOKENIZERS.items()
    }


@jax.jit
@jax.default_matmul_precision("highest")
def residual(network, tokens, mask):
    return network(tokens, mask).hidden


def states(network, rows, length, places):
    """Return the states [L m D] of tokens: places are (row, position)."""
    found = {}
    for row in sorted({row for row, _ in places}):
        tokens = np.zeros((1, length), np.int32)
        tokens[0, : len(rows[row])] = rows[row]
        mask = np.arange(length)[None] < len(rows[row])
        hidden = np.asarray(residual(network, jnp.asarray(tokens), jnp.asarray(mask)))[:, 0]
        found |= {place: hidden[:, place[1]] for place in places if place[0] == row}
    return np.stack([found[place] for place in places], axis=1)


# Each family with one of the tokenizers, in turn.
PAIRS = [(name, list(TOKENIZERS)[i % len(TOKENIZERS)]) for i, name in enumerate(NAMES)]


@pytest.mark.slow
@pytest.mark.parametrize("name,tokenizer_name", PAIRS)
def test_one_pass_equals_a_pass_for_each_part(golden, mesh, stories, plans, name, tokenizer_name):
    vocab_size, max_length = TOKENIZERS[tokenizer_name]
    model = zoo.find(str(golden / "decoders" / name), None)
    config = dataclasses.replace(model.config, vocab_size=vocab_size, max_length=max_length)
    network = weights.initialize(
        readers.family(model.design).network, config, dtype=jnp.dtype("float32"), seed=0, mesh=mesh
    )
    network = jax.device_put(network, jax.devices()[0])
    shared, alone = plans[tokenizer_name]
    assert shared.counts.fallbacks == 0
    assert shared.counts.tokens < alone.counts.tokens / 50
    chosen = []
    for story in dict.fromkeys(stories.passage):
        own = np.flatnonzero(np.array(stories.passage) == story)
        chosen += own[np.linspace(0, len(own) - 1, PARTS_PER_STORY).astype(int)].tolist()
    assert len(chosen) == 10 * PARTS_PER_STORY
    found, expected = (
        states(
            network,
            passes.rows,
            max_length,
            [(int(passes.row[i]), int(passes.stop[i]) - 1) for i in chosen],
        )
        for passes in (shared, alone)
    )
    scale = np.abs(expected).max(axis=(1, 2), keepdims=True)
    np.testing.assert_array_less(np.abs(found - expected) / scale, 1e-5)
