"""Make the tiny vision checkpoints of this folder, and what torch computes from them.

Needs the environment that `make_models.py` names, and is run as it is:

  python tests/golden/make_vision.py

Each folder of `vision/` holds `config.json` and `model.safetensors` as `save_pretrained` writes
them, and `expected.npz`: for inputs of one or two sizes S ("height x width") the arrays
`pixels_S` [B 3 H W], `hidden_S` [L+1 B T D] (the last before the final norm) and `normed_S`
[B T D], what the final norm makes of all tokens of the last; and `versions`, a JSON text. Where
there are: `embeds_S` [B E], the image in the space that it shares with texts; and of text towers
`tokens`, `mask`, `text_hidden`, `text_normed` and `text_embeds`. Text of CLIP ends in its last
token, and what follows is padding; text of SigLIP is padded to all positions, and nothing is
masked.
"""

import json
import platform

import numpy as np
import safetensors
import torch
import transformers
from saved import HERE, Arrays, stack

FOLDER = HERE / "vision"
BATCH = 3
VOCABULARY, END, POSITIONS = 61, 60, 12
# No hyperparameter that a design could forget has its usual value.
SIZES = {
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "layer_norm_eps": 1e-3,
    "attn_implementation": "eager",
}


def redraw(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Give every parameter a value that a forward pass cannot overlook.

    Many begin at zero or nearly: biases, layer scales, BLIP-2's vision tower, mask tokens.
    """
    draw = lambda p: torch.randn(p.shape, generator=generator)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_norm = "norm" in name and name.endswith("weight")
            if is_norm or "lambda1" in name:
                parameter.copy_(1 + 0.3 * draw(parameter))
            elif parameter.ndim < 2:
                parameter.copy_(0.3 * draw(parameter))
            elif "embed" in name and "projection" not in name and "patch" not in name:
                parameter.copy_(draw(parameter))
            elif parameter.ndim == 4:  # the kernel of patches
                parameter.copy_(draw(parameter) / parameter[0].numel() ** 0.5)
            else:
                parameter.copy_(1.2 * draw(parameter) / parameter.shape[-1] ** 0.5)


def images(generator: torch.Generator, height: int, width: int) -> torch.Tensor:
    """Draw pixels as they are after normalisation."""
    return torch.randn((BATCH, 3, height, width), generator=generator)


@torch.no_grad()
def see(tower, norm, generator, sizes, embed=None) -> Arrays:
    """Run a vision tower on images of each size."""
    arrays = {}
    for height, width in sizes:
        pixels = images(generator, height, width)
        output = tower(pixels, output_hidden_states=True)
        name = f"{height}x{width}"
        arrays |= {
            f"pixels_{name}": pixels.numpy(),
            f"hidden_{name}": stack(output.hidden_states),
            f"normed_{name}": norm(output.hidden_states[-1]).numpy(),
        }
        if embed is not None:
            arrays[f"embeds_{name}"] = embed(pixels).numpy()
    return arrays


@torch.no_grad()
def read(tower, embed, tokens: torch.Tensor, mask: torch.Tensor | None) -> Arrays:
    """Run a text tower."""
    given = {} if mask is None else {"attention_mask": mask.long()}
    output = tower(input_ids=tokens, output_hidden_states=True, **given)
    return {
        "tokens": tokens.numpy().astype(np.int32),
        "mask": (torch.ones_like(tokens) if mask is None else mask).numpy().astype(bool),
        "text_hidden": stack(output.hidden_states),
        "text_normed": output.last_hidden_state.numpy(),
        "text_embeds": embed(tokens, **given).numpy(),
    }


def save(name: str, model: torch.nn.Module, expected: Arrays) -> None:
    """Write one folder."""
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # written for the owner alone
    versions = {x.__name__: x.__version__ for x in (torch, transformers, safetensors, np)}
    versions["python"] = platform.python_version()
    np.savez_compressed(
        folder / "expected.npz",
        versions=np.array(json.dumps(versions, sort_keys=True)),
        **expected,
    )


def prepared(model: torch.nn.Module, seed: int) -> tuple[torch.nn.Module, torch.Generator]:
    """Return a model whose weights are drawn anew."""
    generator = torch.Generator().manual_seed(seed)
    model = model.float().eval()
    redraw(model, generator)
    return model, generator


def make_vit() -> None:
    """A ViT with the classifier on top, as most are published; pictures that are not square."""
    config = transformers.ViTConfig(
        hidden_size=24,
        intermediate_size=40,
        image_size=[15, 20],
        patch_size=5,
        hidden_act="gelu_new",
        num_labels=3,
        **SIZES,
    )
    model, generator = prepared(transformers.ViTForImageClassification(config), 11)
    save("vit", model, see(model.vit, model.vit.layernorm, generator, [(15, 20)]))


def make_clip() -> None:
    """Both towers of CLIP, of different widths."""
    vision = {"hidden_size": 24, "intermediate_size": 40, "image_size": 20, "patch_size": 5}
    text = {
        "hidden_size": 32,
        "intermediate_size": 36,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": POSITIONS,
        "bos_token_id": 1,
        "eos_token_id": END,
        "pad_token_id": 0,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "layer_norm_eps": 1e-3,
    }
    config = transformers.CLIPConfig(
        vision_config=vision | SIZES,
        text_config=text,
        projection_dim=10,
        attn_implementation="eager",
    )
    model, generator = prepared(transformers.CLIPModel(config), 12)
    tower = model.vision_model
    embed = lambda pixels: model.get_image_features(pixels).pooler_output
    arrays = see(tower, tower.post_layernorm, generator, [(20, 20)], embed)
    tokens = torch.randint(2, END, (BATCH, 9), generator=generator)
    lengths = torch.tensor([9, 4, 7])[:, None]
    place = torch.arange(9)[None]
    tokens = torch.where(place == lengths - 1, END, tokens)
    tokens = torch.where(place >= lengths, 0, tokens)
    words = lambda tokens, **given: model.get_text_features(tokens, **given).pooler_output
    save("clip", model, arrays | read(model.text_model, words, tokens, place < lengths))


def make_siglip() -> None:
    """Both towers of SigLIP."""
    vision = {"hidden_size": 24, "intermediate_size": 40, "image_size": 20, "patch_size": 5}
    text = {
        "hidden_size": 24,
        "intermediate_size": 36,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": POSITIONS,
        "pad_token_id": 1,
        "projection_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "layer_norm_eps": 1e-3,
    }
    config = transformers.SiglipConfig(
        vision_config=vision | SIZES, text_config=text, attn_implementation="eager"
    )
    model, generator = prepared(transformers.SiglipModel(config), 13)
    tower = model.vision_model
    embed = lambda pixels: model.get_image_features(pixels).pooler_output
    arrays = see(tower, tower.post_layernorm, generator, [(20, 20)], embed)
    tokens = torch.randint(2, END, (BATCH, POSITIONS), generator=generator)
    lengths = torch.tensor([12, 5, 8])[:, None]
    tokens = torch.where(torch.arange(POSITIONS)[None] >= lengths, 1, tokens)
    words = lambda tokens: model.get_text_features(tokens).pooler_output
    save("siglip", model, arrays | read(model.text_model, words, tokens, None))


def make_dinov2(name: str, seed: int, **settings) -> None:
    """DINOv2: the grid it was trained on, and another one that is not square."""
    registers = "num_register_tokens" in settings
    kinds = (
        (transformers.Dinov2WithRegistersConfig, transformers.Dinov2WithRegistersModel)
        if registers
        else (transformers.Dinov2Config, transformers.Dinov2Model)
    )
    config = kinds[0](hidden_size=24, image_size=35, patch_size=7, **SIZES, **settings)
    model, generator = prepared(kinds[1](config), seed)
    save(name, model, see(model, model.layernorm, generator, [(35, 35), (28, 45)]))


def make_eva() -> None:
    """The vision tower of BLIP-2."""
    config = transformers.Blip2VisionConfig(
        hidden_size=24, intermediate_size=40, image_size=20, patch_size=5, **SIZES
    )
    model, generator = prepared(transformers.Blip2VisionModel(config), 17)
    save("blip_2_vision", model, see(model, model.post_layernorm, generator, [(20, 20)]))


def main() -> None:
    """Make all folders."""
    make_vit()
    make_clip()
    make_siglip()
    make_dinov2("dinov2", 14, mlp_ratio=2, hidden_act="gelu_new")
    make_dinov2("dinov2_swiglu", 15, use_swiglu_ffn=True, mlp_ratio=3)
    make_dinov2("dinov2_registers", 16, num_register_tokens=2, mlp_ratio=2)
    make_eva()


if __name__ == "__main__":
    main()
