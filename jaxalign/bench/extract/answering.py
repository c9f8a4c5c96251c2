"""Times of answers to many instructions about the same images, compared with answers to one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign.bench import extract_page as tables
from jaxalign.bench import timing
from jaxalign.bench.extract import shared
from jaxalign.bench.extract.config import Answering, Network
from jaxalign.io.run_dir import Artefact
from jaxalign.models import answers, generate, readers, weights, zoo
from jaxalign.stages import Job

VOCABULARY = 32_000
_IMAGE = VOCABULARY - 1  # the image's token


def measure_answers(case: Answering, network: Network, job: Job, artefact: Artefact) -> list[dict]:
    """Time one instruction and all of them about the same images, on random weights.

    No token ends an answer, so that all have the same length.
    """
    del artefact
    design, config = zoo.configure(_described(case, network), source="bench_extract")
    model = weights.initialize(
        readers.family(design).network, config, dtype=jnp.float32, seed=job.seed, mesh=job.mesh
    )
    rng = np.random.default_rng(job.seed)
    side = case.image_size
    pixels = jnp.asarray(rng.standard_normal((case.num_images, 3, side, side), np.float32))
    prompts = _prompts(case, config, rng)
    ending = generate.Ending(case.num_new, (0,))

    def ask(count):
        some = answers.Prompts(*(None if x is None else x[:count] for x in prompts))
        found = answers.answer(model, pixels, some, ("generated",), ending)
        return jax.block_until_ready(found.features["generated"])

    counts = {"one": 1, "all": case.num_instructions}
    timings = timing.take_turns(
        {name: functools.partial(ask, count) for name, count in counts.items()},
        repeats=dict.fromkeys(counts, case.num_repeats),
    )
    one = timings["one"]
    sizes = f"{case.family}: {case.vision_layers} x {case.vision_width} sees {side} pixels"
    rows = []
    for name, timed in timings.items():
        row = shared.timing_row(tables.OURS, timed)
        row |= {"num_images": case.num_images, "instructions": counts[name], "sizes": sizes}
        row |= {"num_new": case.num_new, "ratio": min(timed.times_s) / min(one.times_s)}
        rows.append(row | {"bar": case.bar})
    return rows


def _described(case: Answering, network: Network) -> dict:
    """Return what a `config.json` of these sizes would say."""
    text = {
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "num_hidden_layers": network.num_layers,
        "hidden_size": network.width,
        "num_attention_heads": network.num_heads,
        "intermediate_size": network.mlp_size,
        "max_position_embeddings": network.max_length,
        "tie_word_embeddings": False,
    }
    vision = {
        "num_hidden_layers": case.vision_layers,
        "hidden_size": case.vision_width,
        "num_attention_heads": case.vision_heads,
        "intermediate_size": 4 * case.vision_width,
        "image_size": case.image_size,
        "patch_size": 14,
    }
    found = {"model_type": case.family, "image_token_index": _IMAGE, "text_config": text}
    if case.family == "llava":
        return found | {
            "vision_config": vision | {"model_type": "clip_vision_model"},
            "vision_feature_layer": -2,
            "vision_feature_select_strategy": "default",
            "projector_hidden_act": "gelu",
        }
    qformer = {
        "model_type": "instructblip_qformer",
        "vocab_size": VOCABULARY,
        "num_hidden_layers": 4,
        "hidden_size": 192,
        "num_attention_heads": 4,
        "intermediate_size": 768,
        "cross_attention_frequency": 2,
        "encoder_hidden_size": case.vision_width,
        "max_position_embeddings": 512,
    }
    return found | {
        "vision_config": vision | {"model_type": "instructblip_vision_model"},
        "qformer_config": qformer,
        "num_query_tokens": 32,
        "use_decoder_only_language_model": True,
    }


def _prompts(case: Answering, config, rng: np.random.Generator) -> answers.Prompts:
    """Draw prompts: some words, the image and an instruction; a Q-Former's image comes first."""
    num, size = case.num_instructions, case.prompt_tokens
    words = rng.integers(3, _IMAGE, (num, size))
    image = np.full((num, config.num_image_tokens), _IMAGE)
    before = np.tile(rng.integers(3, _IMAGE, 4), (num, 1))
    parts = [image, before, words] if config.reads_instruction else [before, image, words]
    tokens = np.concatenate(parts, axis=1).astype(np.int32)
    given = (words.astype(np.int32), np.ones(words.shape, bool))
    alone = given if config.reads_instruction else (None, None)
    return answers.Prompts(tokens, np.ones(tokens.shape, bool), *alone)
