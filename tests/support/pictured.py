"""Tiny models of images and text with all their files, and images to ask them about."""

import json
import pathlib
import shutil

import numpy as np
import pandas as pd
import PIL.Image
import tiny
import tokenizers
from tokenizers import models, pre_tokenizers, processors

from jaxalign.data.images import pixels
from jaxalign.data.schema import Responses

NUM = 24
SIDE = 15  # of the images that the models take
INSTRUCTIONS = ("What is it ?", "Name the two animals")
WORDS = "USER: ASSISTANT: What is it ? Name the two animals Describe colours".split()
PROCESSORS = {
    "llava": {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": SIDE},
        "crop_size": {"height": SIDE, "width": SIDE},
    },
    "instructblip_vicuna": {
        "image_processor_type": "BlipImageProcessor",
        "size": {"height": SIDE, "width": SIDE},
    },
    "idefics": {"image_processor_type": "IdeficsImageProcessor", "image_size": SIDE},
    "qwen2_vl": {
        "image_processor_type": "Qwen2VLImageProcessor",
        "size": {"shortest_edge": 16, "longest_edge": 600},
        "patch_size": 4,
        "merge_size": 2,
    },
}


def write_tokenizer(
    folder: pathlib.Path, size: int, image: int = -1, name: str = "<image>"
) -> None:
    """Write a tokenizer of whole words with as many tokens, one of which may be the image's."""
    folder.mkdir(exist_ok=True)
    words = ["<unk>", "<s>", "</s>", *WORDS]
    words += [f"w{i}" for i in range(len(words), size)]
    if image >= 0:
        words[image] = name
    found = tokenizers.Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    found.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    found.add_special_tokens(["<s>", "</s>", *([name] if image >= 0 else [])])
    found.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    found.save(str(folder / "tokenizer.json"))


def write_model(folder: pathlib.Path, name: str, stop_token: int = 2) -> pathlib.Path:
    """Copy a golden checkpoint, and add the files that say how it is asked."""
    shutil.copytree(tiny.GOLDEN / "multimodal" / name, folder)
    (folder / pixels.FILE).write_text(json.dumps(PROCESSORS[name]))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": stop_token}))
    write_tokenizer(folder, 61, 60, "<|image_pad|>" if name.startswith("qwen") else "<image>")
    if name.startswith("instructblip"):
        write_tokenizer(folder / "qformer_tokenizer", 50)
    return folder


def write_images(folder: pathlib.Path, rng: np.random.Generator, num: int = NUM) -> pathlib.Path:
    """Write images of several sizes as a data set, with responses that nothing explains."""
    folder.mkdir()
    ids = [f"i{i}" for i in range(num)]
    for i, name in enumerate(ids):
        image = rng.integers(0, 256, (18 + i % 6, 20, 3), dtype=np.uint8)
        PIL.Image.fromarray(image).save(folder / f"{name}.png")
    table = {"stimulus_id": ids, "image": [f"{x}.png" for x in ids]}
    pd.DataFrame(table).to_csv(folder / "stimuli.csv", index=False)
    responses = Responses(
        values=rng.standard_normal((num, 2)),
        run=["session"] * num,
        subject=["s1", "s1"],
        roi=["V1", "V1"],
        target=["a", "b"],
        units="percent",
        stimulus_id=ids,
    )
    (folder / "responses.npz").write_bytes(responses.to_bytes())
    return folder
