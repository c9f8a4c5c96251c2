"""Make tiny models of images and text, and what torch computes from them.

Needs the environment that `make_models.py` names:

  python tests/golden/make_multimodal.py [name ...]

Each folder of `multimodal/` holds `config.json` and `model.safetensors` as `save_pretrained` writes
them, and `expected.npz`:

- `pixels` [B 3 H W], and two sets of prompts: `apart`, where the image stands at several positions,
  and `shared`, where all prompts begin alike up to after the image. Of set S: `tokens_S` [Q T] with
  `mask_S`, and where a Q-Former reads instructions `instructions_S` [Q t] with
  `instruction_mask_S`; rows of all that follows are B*Q, image by image;
- `vision` [L+1 B P D] states of the tower, `vectors` [B or B*Q n E] of the connector (several of a
  token in one row), `qformer` [L+1 B or B*Q n+t D] states of a Q-Former, of the set `apart`;
- `hidden_apart` [L+1 B*Q T E] and `logits_apart` [B*Q T or t V]: of a T5 `hidden_apart` are the
  encoder's; `decoder_apart` and `logits_apart` those of `answer` behind the start token;
- `greedy_S` [B*Q 20] what `generate` answers without a stop token, each prompt alone; `stop` a
  token, and `stopped_apart` [B*Q 20] with it as the stop token, -1 after it;
- `POOLING_S` [L+1 B*Q E] from the `hidden_states` of `generate` without a stop token, and of
  `generated_stopped` with it, NaN where nothing was fed back;
- `versions`, a JSON text.
"""

import json
import platform
import sys

import numpy as np
import safetensors
import torch
import transformers
from multimodal_configs import CLASSES, IMAGE, MODELS, QWEN_SIZE
from saved import HERE, Arrays, stack

FOLDER = HERE / "multimodal"
NUM_NEW = 20


def redraw(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Give every parameter a value that a pass cannot overlook, those that begin at zero too."""
    draw = lambda p: torch.randn(p.shape, generator=generator)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name.lower() and name.endswith("weight"):
                parameter.copy_(1 + 0.3 * draw(parameter))
            elif "alpha" in name or "latents" in name and parameter.ndim == 2:
                parameter.copy_(draw(parameter))
            elif parameter.ndim < 2:
                parameter.copy_(0.3 * draw(parameter))
            elif "relative_attention_bias" in name:
                parameter.copy_(draw(parameter))
            elif "embed" in name and "patch" not in name or "shared" in name or "query_t" in name:
                parameter.copy_(draw(parameter))
            elif parameter.ndim > 2:  # the kernel of patches
                parameter.copy_(draw(parameter) / parameter[0].numel() ** 0.5)
            else:
                parameter.copy_(1.2 * draw(parameter) / parameter.shape[-1] ** 0.5)


def pad(rows: list[list[int]], padding: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows as one array, padded on the right, and where they hold tokens."""
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(lengths.max())[None] < lengths[:, None]
    tokens = np.full(mask.shape, padding, np.int32)
    tokens[mask] = [token for row in rows for token in row]
    return tokens, mask


def prompts(num_image: int, generator: torch.Generator, kind: str) -> Arrays:
    """Draw two sets of prompts."""
    words = lambda n: torch.randint(4, IMAGE, (n,), generator=generator).tolist()
    image = [IMAGE] * num_image
    begin = words(2) + image + words(1)
    sets = {
        "apart": [[*image, *words(4)], [*words(3), *image, *words(6)], [*words(5), *image]],
        "shared": [[*begin, *words(n)] for n in (4, 1, 7)],
    }
    if kind.startswith("Qwen"):
        # Behind an image at the end of a prompt, which no prompt of Qwen's has, `generate` counts
        # on from the place of the image's last token, and a pass over all tokens does not.
        sets["apart"][2] += words(1)
    if kind == "PaliGemma":  # an image stands at the beginning
        sets["apart"] = [[*image, *words(n)] for n in (3, 7, 5)]
    arrays = {}
    for name, rows in sets.items():
        arrays[f"tokens_{name}"], arrays[f"mask_{name}"] = pad(rows, 3)
        rows = [torch.randint(1, 50, (n,), generator=generator).tolist() for n in (5, 8, 3)]
        arrays[f"instructions_{name}"], arrays[f"instruction_mask_{name}"] = pad(rows, 0)
    return arrays


def without_padding(arrays: Arrays, name: str, row: int) -> dict[str, torch.Tensor]:
    """Return one prompt as transformers' models take it."""
    tokens = arrays[f"tokens_{name}"][row, arrays[f"mask_{name}"][row]]
    given = {"input_ids": torch.tensor(tokens[None]).long()}
    if f"instructions_{name}" in arrays:
        found = arrays[f"instructions_{name}"][row, arrays[f"instruction_mask_{name}"][row]]
        given["qformer_input_ids"] = torch.tensor(found[None]).long()
    return given | {"attention_mask": torch.ones_like(given["input_ids"])}


def padded(arrays: Arrays, name: str, num_images: int) -> dict[str, torch.Tensor]:
    """Return all prompts about all images as one batch."""
    rows = lambda x: torch.tensor(np.tile(x, (num_images, 1))).long()
    given = {
        "input_ids": rows(arrays[f"tokens_{name}"]),
        "attention_mask": rows(arrays[f"mask_{name}"]),
    }
    if f"instructions_{name}" in arrays:
        given["qformer_input_ids"] = rows(arrays[f"instructions_{name}"])
        given["qformer_attention_mask"] = rows(arrays[f"instruction_mask_{name}"])
    return given


def with_gate(given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Add which tokens attend to the one image: its own and those after it."""
    seen = torch.cumsum(given["input_ids"] == IMAGE, dim=1) > 0
    return given | {"image_attention_mask": seen[..., None].long()}


def record(first, layers, call) -> np.ndarray:
    """Return what the first layer is given, and what all return, while something is called."""
    kept = []
    hooks = [
        first.register_forward_pre_hook(
            lambda module, args, kwargs: kept.append(args[0] if args else kwargs["hidden_states"]),
            with_kwargs=True,
        )
    ]
    keep = lambda module, args, out: kept.append(out[0] if isinstance(out, tuple) else out)
    hooks += [layer.register_forward_hook(keep) for layer in layers]
    call()
    for hook in hooks:
        hook.remove()
    return stack(kept)


def run_idefics(model, arrays: Arrays, pixels) -> Arrays:
    """Return what all parts compute from the set `apart`."""
    given = with_gate(padded(arrays, "apart", len(pixels)))
    each = pixels.repeat_interleave(3, dim=0)[:, None]
    layers = model.model.vision_model.encoder.layers
    vision = record(layers[0], layers, lambda: model.model.vision_model(pixel_values=pixels))
    output = model(**given, pixel_values=each, output_hidden_states=True)
    return {
        "vision": vision,
        "vectors": model.model.perceiver_resampler(torch.tensor(vision[-1])).numpy(),
        "hidden_apart": stack(output.hidden_states),
        "logits_apart": output.logits.numpy(),
    }


def as_qwen(given: dict[str, torch.Tensor], pixels) -> dict[str, torch.Tensor]:
    """Add an image to each row as Qwen-VL takes it: patches of groups of four, frames alike."""
    B, C, H, W = pixels.shape
    x = pixels.reshape(B, C, H // 8, 2, 4, W // 8, 2, 4).permute(0, 2, 5, 3, 6, 1, 4, 7)
    x = x.unsqueeze(6).repeat(1, 1, 1, 1, 1, 1, 2, 1, 1).reshape(-1, C * 2 * 4 * 4)
    return given | {
        "pixel_values": x,
        "image_grid_thw": torch.tensor([[1, H // 4, W // 4]] * B),
        "mm_token_type_ids": (given["input_ids"] == IMAGE).int(),
    }


def run_qwen(model, arrays: Arrays, pixels) -> Arrays:
    """Return what all parts compute from the set `apart`."""
    tower, num = model.model.visual, len(pixels)
    alone = as_qwen({"input_ids": torch.zeros((1, 1))}, pixels)
    given = alone["pixel_values"], alone["image_grid_thw"]
    vision = record(tower.blocks[0], tower.blocks, lambda: tower(*given))
    if "Qwen2_5" in type(model).__name__:  # its patches are sorted by windows
        from transformers.vision_utils import get_vision_window_index

        order = get_vision_window_index(given[1], 2, 16, 4)[0].numpy()
        vision = vision.reshape(len(vision), -1, 4, vision.shape[-1])
        sorted_back = np.empty_like(vision)
        sorted_back[:, order] = vision
        vision = sorted_back.reshape(len(vision), -1, vision.shape[-1])
    rows = as_qwen(padded(arrays, "apart", num), pixels.repeat_interleave(3, dim=0))
    output = model(**rows, output_hidden_states=True)
    seen = tower(*given)
    # Behind those of the last layer, in Qwen3-VL, those of others.
    vectors = [seen.pooler_output, *(getattr(seen, "deepstack_features", None) or ())]
    return {
        "vision": vision.reshape(len(vision), num, -1, vision.shape[-1]),
        "vectors": torch.cat(vectors, dim=-1).reshape(num, -1, 32 * len(vectors)).numpy(),
        "hidden_apart": stack(output.hidden_states),
        "logits_apart": output.logits.numpy(),
    }


def run_smolvlm(model, arrays: Arrays, pixels) -> Arrays:
    """Return what all parts compute from the set `apart`."""
    tower = model.model.vision_model
    layers = tower.encoder.layers
    vision = record(layers[0], layers, lambda: tower(pixel_values=pixels))
    given = padded(arrays, "apart", len(pixels))
    each = pixels.repeat_interleave(3, dim=0)[:, None]
    output = model(**given, pixel_values=each, output_hidden_states=True)
    return {
        "vision": vision,
        "vectors": model.model.connector(tower(pixel_values=pixels).last_hidden_state).numpy(),
        "hidden_apart": stack(output.hidden_states),
        "logits_apart": output.logits.numpy(),
    }


def answer(model, given, pixels, stop: int | None) -> tuple[list[int], dict[str, np.ndarray]]:
    """Return the new tokens of one prompt, and what is pooled of each layer."""
    config = model.generation_config
    config.eos_token_id, config.pad_token_id, config.max_length = stop, 3, None
    config.bos_token_id = None
    if hasattr(model, "language_model"):
        inner = model.language_model.generation_config
        inner.eos_token_id, inner.pad_token_id, inner.max_length = stop, 3, None
    if type(model).__name__.startswith("Idefics"):
        given, pixels = with_gate(given), pixels[:, None]
    if type(model).__name__.startswith("SmolVLM"):
        pixels = pixels[:, None]
    given["pixel_values"] = pixels
    if type(model).__name__.startswith("PaliGemma"):  # all of it a prompt, as its processor says
        given["token_type_ids"] = torch.zeros_like(given["input_ids"])
    if type(model).__name__.startswith("Gemma3"):
        given["token_type_ids"] = (given["input_ids"] == IMAGE).long()
    if type(model).__name__.startswith("Qwen"):
        given = as_qwen(given, pixels)
    output = model.generate(
        **given,
        max_new_tokens=NUM_NEW,
        do_sample=False,
        num_beams=1,
        return_dict_in_generate=True,
        output_hidden_states=True,
    )
    length = given["input_ids"].shape[1]
    is_image = (given["input_ids"][0] == IMAGE).numpy()
    if "decoder_hidden_states" in output:
        steps = output.decoder_hidden_states
        prompt = stack(output.encoder_hidden_states)[:, 0]
        tokens = output.sequences[0, 1:].tolist()
    else:
        steps = output.hidden_states
        prompt = stack(steps[0])[:, 0]
        tokens = output.sequences[0].tolist()
        tokens = tokens[length:] if len(tokens) > len(steps) else tokens
    assert prompt.shape[1] == length and len(tokens) == len(steps)
    fed = [stack(step)[:, 0, 0] for step in steps[1:]]
    nothing = np.full_like(stack(steps[0])[:, 0, 0], np.nan)
    pooled = {
        "generated": np.mean(fed, axis=0) if fed else nothing,
        "last_fed": fed[-1] if fed else nothing,
        "prompt_last": prompt[:, -1],
        "prompt_mean": prompt.mean(axis=1),
        "image_tokens": prompt[:, is_image].mean(axis=1),
    }
    if "decoder_hidden_states" not in output:
        whole = np.concatenate([prompt, np.stack(fed, axis=1)], axis=1) if fed else prompt
        pooled["all"] = whole.mean(axis=1)
    return tokens, pooled


def answers(model, arrays: Arrays, pixels, name: str, stop: int | None):
    """Return the answers to all prompts of a set about all images, -1 after the stop token."""
    tokens = np.full((len(pixels) * 3, NUM_NEW), -1, np.int32)
    features = []
    for row in range(len(tokens)):
        given = without_padding(arrays, name, row % 3)
        image = pixels[row // 3 : row // 3 + 1]
        found, pooled = answer(model, given, image, stop)
        tokens[row, : len(found)] = found
        features.append(pooled)
    return tokens, {x: np.stack([f[x] for f in features], axis=1) for x in features[0]}


def run(model, name: str, arrays: Arrays, pixels, generator) -> Arrays:
    """Return what all parts compute from the set `apart`."""
    given = padded(arrays, "apart", len(pixels))
    each = pixels.repeat_interleave(3, dim=0)
    tower = model.model.vision_tower if hasattr(model, "model") else model.vision_model
    seen = tower(pixels, output_hidden_states=True)
    found = {"vision": stack(seen.hidden_states)}
    is_t5 = getattr(model.config.text_config, "model_type", "") == "t5"
    if is_t5:
        reply = torch.randint(4, IMAGE, (len(each), 6), generator=generator)
        found["answer"] = reply.numpy().astype(np.int32)
        given["decoder_input_ids"] = torch.cat([torch.zeros_like(reply[:, :1]), reply], dim=1)
    if name == "paligemma":  # a prompt, not a prompt and its answer
        given["token_type_ids"] = torch.zeros_like(given["input_ids"])
    if name == "gemma3":
        given["token_type_ids"] = (given["input_ids"] == IMAGE).long()
    output = model(**given, pixel_values=each, output_hidden_states=True)
    features = {"pixel_values": each}
    if "qformer_input_ids" in given:
        features |= {k: x for k, x in given.items() if k.startswith("qformer")}
    image = model.get_image_features(**features, return_dict=True)
    vectors = image.pooler_output
    vectors = torch.stack(list(vectors)) if isinstance(vectors, list | tuple) else vectors
    found["vectors"] = vectors.numpy()
    if hasattr(model, "qformer"):
        layers = model.qformer.encoder.layer
        see = lambda: model.get_image_features(**features, return_dict=True)
        found["qformer"] = record(layers[0], layers, see)
    inner = output.language_model_outputs if hasattr(model, "qformer") else output
    found["logits_apart"] = output.logits.numpy()
    if is_t5:
        found["hidden_apart"] = stack(inner.encoder_hidden_states)
        found["decoder_apart"] = stack(inner.decoder_hidden_states)
    else:
        found["hidden_apart"] = stack(inner.hidden_states)
    return found


@torch.no_grad()
def make(name: str, seed: int) -> None:
    """Write one folder."""
    kind, settings, num_image = MODELS[name]
    config = getattr(transformers, f"{kind}Config")(**settings)
    if settings.get("text_config", {}).get("model_type") == "t5":
        # Published files have a head of its own, which version 5 overlooks.
        config.text_config.tie_word_embeddings = False
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = getattr(transformers, CLASSES.get(kind, f"{kind}ForConditionalGeneration"))
    model = model._from_config(config, attn_implementation="eager").float().eval()
    if hasattr(model, "language_model") and hasattr(model.language_model, "shared"):
        # But one table for both stacks, as in every published checkpoint.
        model.language_model.set_input_embeddings(model.language_model.shared)
    redraw(model, generator)
    size = settings["vision_config"].get("image_size", 0)
    size = QWEN_SIZE if kind.startswith("Qwen") else (size, size)
    pixels = torch.randn((2, 3, *size), generator=generator)
    arrays = prompts(num_image, generator, kind)
    if kind != "InstructBlip":
        arrays = {key: x for key, x in arrays.items() if not key.startswith("instruction")}
    arrays["pixels"] = pixels.numpy()
    if kind == "Idefics":
        arrays |= run_idefics(model, arrays, pixels)
    elif kind == "SmolVLM":
        arrays |= run_smolvlm(model, arrays, pixels)
    elif kind.startswith("Qwen"):
        arrays |= run_qwen(model, arrays, pixels)
    else:
        arrays |= run(model, name, arrays, pixels, generator)
    for prompt_set in ("apart", "shared"):
        tokens, pooled = answers(model, arrays, pixels, prompt_set, None)
        arrays[f"greedy_{prompt_set}"] = tokens
        arrays |= {f"{pooling}_{prompt_set}": x for pooling, x in pooled.items()}
    # A token that ends one answer at once, and others later or never.
    arrays["stop"] = arrays["greedy_apart"][0, 0]
    tokens, pooled = answers(model, arrays, pixels, "apart", int(arrays["stop"]))
    arrays |= {"stopped_apart": tokens, "generated_stopped": pooled["generated"]}
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / "model.safetensors").chmod(0o644)  # written for the owner alone
    versions = {x.__name__: x.__version__ for x in (torch, transformers, safetensors, np)}
    versions["python"] = platform.python_version()
    text = np.array(json.dumps(versions, sort_keys=True))
    np.savez_compressed(folder / "expected.npz", versions=text, **arrays)


def main() -> None:
    """Make the folders that are named, or all."""
    for seed, name in enumerate(MODELS):
        if name in (sys.argv[1:] or MODELS):
            make(name, 500 + seed)


if __name__ == "__main__":
    main()
