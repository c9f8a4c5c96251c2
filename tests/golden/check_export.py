"""Compare exported checkpoints and adapters with what transformers and PEFT compute from them.

In the environment of the tests, and then in the one that `make_models.py` names, with peft:

  python tests/golden/check_export.py make FOLDER
  python tests/golden/check_export.py check FOLDER

The first exports every small checkpoint here from an Orbax checkpoint of it, and adapters on all of
its linear maps, with the logits (or last hidden states) of this library. The second loads both,
and prints the largest differences, relative to the largest logit; it ends with 1 if one is above
`TOLERANCE`, or if a parameter was not in the files.
"""

import json
import pathlib
import sys

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
TOLERANCE = 1e-5
RANK, ALPHA = 2, 3.0
TEXT = (
    "llama",
    "llama_tied",
    "t5_v1_0",
    "t5_v1_1",
    "bert",
    "roberta",
    *(f"decoders/{x.name}" for x in sorted((HERE / "decoders").iterdir()) if x.is_dir()),
    *(f"variants/{x.name}" for x in sorted((HERE / "variants").iterdir()) if x.is_dir()),
    *(f"families/{x.name}" for x in sorted((HERE / "families").iterdir()) if x.is_dir()),
)
ENCODERS = (
    *(
        "albert",
        "bert",
        "camembert",
        "distilbert",
        "electra",
        "roberta",
        "vit",
        "xlm",
        "xlm-roberta",
    ),
)
OTHERS = ("vision/vit", "vision/dinov2", "vision/dinov2_swiglu", "vision/dinov2_registers")


def make(folder: pathlib.Path) -> None:
    """Export all."""
    import jax

    from jaxalign.core import mesh as mesh_lib
    from jaxalign.models import adapter_files, convert, export, lora, zoo

    jax.config.update("jax_default_matmul_precision", "highest")
    mesh = mesh_lib.make_mesh(1, 1)
    for name in (*TEXT, *OTHERS):
        place = folder / name.replace("/", "-")
        convert.convert(HERE / name, place / "orbax", output="orbax")
        model = zoo.find(str(place / "orbax"), None)
        sys.stdout.write(f"{export.export(model, place / 'exported')}\n")
        network = model.load(mesh)
        arrays = draw(model)
        arrays["plain"] = compute(network, model, arrays)
        lora.add(network, rank=RANK, alpha=ALPHA, seed=1)
        rng = np.random.default_rng(2)
        for _, linear in lora.maps(network):
            linear.lora_b[...] = rng.normal(0, 0.3, linear.lora_b.shape).astype(np.float32)
        try:
            adapters = adapter_files.of_network(network)
            base = str((place / "exported").resolve())
            adapter_files.write(place / "adapter", model, adapters, base=base)
            arrays["adapted"] = compute(network, model, arrays)
        except convert.InputError as error:
            sys.stdout.write(f"{error}\n")
        np.savez(place / "expected.npz", **arrays)


def draw(model) -> dict[str, np.ndarray]:
    """Draw two texts, or two images."""
    rng = np.random.default_rng(0)
    if model.reads == "images":
        size = (2, model.config.num_channels, *model.config.image_size)
        return {"pixels": rng.normal(0, 1, size).astype(np.float32)}
    return {"tokens": rng.integers(5, model.config.vocab_size, (2, 11)).astype(np.int32)}


def compute(network, model, arrays) -> np.ndarray:
    """Return logits, or last hidden states of what predicts nothing."""
    import jax
    from flax import nnx

    from jaxalign.models import seq2seq

    @nnx.jit
    def run(network, arrays):
        if model.reads == "images":
            return network(arrays["pixels"]).final
        tokens = arrays["tokens"]
        mask = np.ones(tokens.shape, bool)
        if model.design == "t5":
            final = seq2seq.over_answers(network, seq2seq.Read(tokens, mask), tokens, mask)
            return network.logits(final)
        output = network(tokens, mask)
        return network.logits(output.final) if model.predicts else output.hidden[-1]

    return np.asarray(run(network, jax.tree.map(np.asarray, arrays)))


def check(folder: pathlib.Path) -> int:
    """Load all."""
    worst = 0.0
    for name in (*TEXT, *OTHERS):
        place = folder / name.replace("/", "-")
        expected = dict(np.load(place / "expected.npz"))
        found = {"plain": load(place / "exported")}
        if "adapted" in expected:
            found["adapted"] = adapt(load(place / "exported"), place / "adapter")
        line = []
        for key, network in found.items():
            difference = np.abs(run(network, expected) - expected[key]).max()
            line.append(difference / np.abs(expected[key]).max())
        worst = max(worst, *line)
        sys.stdout.write(f"{name} {' '.join(f'{x:.1e}' for x in line)}\n")
    return int(worst > TOLERANCE)


def load(folder: pathlib.Path):
    """Load a network in float32, all of whose parameters must be in its files."""
    import transformers

    hf = json.loads((folder / "config.json").read_text())
    classes = transformers.AutoModelForCausalLM
    if hf["model_type"] == "t5":
        classes = transformers.AutoModelForSeq2SeqLM
    elif hf["model_type"] in ENCODERS or "dinov2" in hf["model_type"]:
        classes = transformers.AutoModel
    # Its other implementation adds ALiBi to the logits of attention twice.
    attention = "sdpa" if hf["model_type"] == "falcon" else "eager"
    network, info = classes.from_pretrained(
        folder, output_loading_info=True, attn_implementation=attention
    )
    odd = [x for x in info["missing_keys"] if "pooler" not in x and "mask_token" not in x]
    odd += list(info["unexpected_keys"]) + list(info["mismatched_keys"])
    if odd:
        raise ValueError(f"{folder}: {odd}")
    return network.float().eval()


def adapt(network, folder: pathlib.Path):
    """Put an adapter on a network; all of its arrays must be used."""
    import peft
    import safetensors.numpy

    adapted = peft.PeftModel.from_pretrained(network, folder)
    stored = safetensors.numpy.load_file(folder / "adapter_model.safetensors")
    held = peft.get_peft_model_state_dict(adapted)
    if held.keys() != stored.keys():
        raise ValueError(f"{folder}: {sorted(set(held) ^ set(stored))[:3]}")
    return adapted.eval()


def run(network, arrays) -> np.ndarray:
    """Return what `compute` does."""
    import torch

    with torch.no_grad():
        if "pixels" in arrays:
            return network(pixel_values=torch.tensor(arrays["pixels"])).last_hidden_state.numpy()
        tokens = torch.tensor(arrays["tokens"]).long()
        extra = {}
        if network.config.model_type == "t5":
            extra = {"decoder_input_ids": tokens}
        output = network(input_ids=tokens, **extra)
        return (output.logits if "logits" in output else output.last_hidden_state).numpy()


if __name__ == "__main__":
    command, place = sys.argv[1], pathlib.Path(sys.argv[2])
    sys.exit(check(place) if command == "check" else make(place))
