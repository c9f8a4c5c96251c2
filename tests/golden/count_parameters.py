"""Derive the number of parameters of every row of the table of models with transformers.

An oracle for `jaxalign/models/table.py`: it builds each architecture from the row's own
hyperparameters without memory for its weights, and says which rows differ.

  pip install torch==2.13.0 'transformers>=5,<6'
  python tests/golden/count_parameters.py
"""

import importlib.util
import pathlib
import sys
import types

import torch
import transformers

MODELS = pathlib.Path(__file__).resolve().parents[2] / "jaxalign/models"
UNKNOWN = ("mplug-owl",)  # to transformers
HEADLESS = (
    *("bert", "roberta", "vit", "clip", "siglip", "dinov2", "dinov2_with_registers"),
    *("albert", "camembert", "distilbert", "electra", "xlm", "xlm-roberta"),
)


def count(config: dict) -> int:
    """Return the number of parameters, each shared one counted once."""
    others = ("n_embd", "image_size", "vision_config", "d_model", "n_layers")
    if config["model_type"] not in HEADLESS and not any(name in config for name in others):
        config = {"max_position_embeddings": 2048} | config
    built = transformers.AutoConfig.for_model(**config)
    if config["model_type"] == "t5":
        # Version 5 ties the head whatever the configuration says; the published files do not.
        built.tie_word_embeddings = config.get("tie_word_embeddings", True)
    reads_images = config["model_type"] not in HEADLESS and "vision_config" in config
    if reads_images and getattr(built.text_config, "model_type", "") == "t5":
        built.tie_word_embeddings = built.text_config.tie_word_embeddings = False
    with torch.device("meta"):
        if reads_images:
            model = transformers.AutoModelForImageTextToText.from_config(built)
        elif config["model_type"] in HEADLESS:
            model = transformers.AutoModel.from_config(built)
        elif config["model_type"] == "t5":
            model = transformers.T5ForConditionalGeneration(built)
            model.set_input_embeddings(model.shared)
        else:
            model = transformers.AutoModelForCausalLM.from_config(built)
    model.tie_weights()
    return sum(parameter.numel() for parameter in model.parameters())


def load(name: str) -> types.ModuleType:
    """Run a module of the models by itself."""
    spec = importlib.util.spec_from_file_location(name, MODELS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where a dataclass looks itself up
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Compare all rows."""
    # Without the package, which needs JAX.
    sys.modules |= {name: types.ModuleType(name) for name in ("jaxalign", "jaxalign.models")}
    for rows in ("image_models", "text_models"):
        setattr(sys.modules["jaxalign.models"], rows, load(rows))
    table = load("table")
    seen, wrong = {}, 0
    for name, row in table.MODELS.items():
        if not row.config or row.config["model_type"] in UNKNOWN:
            continue
        key = str(sorted(row.config.items(), key=str))
        if key not in seen:
            seen[key] = count(dict(row.config))
        if seen[key] != row.num_parameters:
            wrong += 1
            sys.stdout.write(f"{name}: {row.num_parameters:,}, derived {seen[key]:,}\n")
    sys.stdout.write(f"{len(table.MODELS)} rows, {len(seen)} architectures, {wrong} differ\n")


if __name__ == "__main__":
    main()
