"""Instructions in the frames of models, with a tokenizer whose ids can be read off."""

import numpy as np
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, processors

from jaxalign.data.text import image_prompts
from jaxalign.data.text.image_prompts import Frame, Image
from jaxalign.errors import InputError

WORDS = ["<unk>", "<s>", "<image>", "USER:", "What", "is", "it", "?", "ASSISTANT:", "Name"]
FRAME = Frame("USER: {image} {instruction} ASSISTANT:")
LLAVA = Image(2, 3)


@pytest.fixture(scope="module")
def tokenizer():
    found = tokenizers.Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>")
    )
    found.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    found.add_special_tokens(["<image>"])
    found.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return found


def assemble(tokenizer, frame=FRAME, instructions=("What is it ?", "Name it"), image=LLAVA):
    return image_prompts.assemble(tokenizer, frame, instructions, image, longest=10)


def test_the_image_stands_inside(tokenizer):
    rows = assemble(tokenizer)
    assert rows.tokens.tolist() == [[1, 3, 2, 2, 2, 4, 5, 6, 7, 8], [1, 3, 2, 2, 2, 9, 6, 8, 0, 0]]
    assert rows.mask.sum(axis=1).tolist() == [10, 8]


def test_the_image_stands_before_the_first_token(tokenizer):
    """As BLIP-2's processor has it; the token need not be the tokenizer's."""
    frame, image = Frame("{image}{instruction}", "before"), Image(-1, 2)
    rows = assemble(tokenizer, frame, ["Name it"], image)
    assert rows.tokens.tolist() == [[-1, -1, 1, 9, 6]]


def test_pieces_are_cut_apart(tokenizer):
    frame = Frame("USER:{image}{instruction}", "apart")
    rows = assemble(tokenizer, frame, ["Name it"], Image(-1, 2))
    assert rows.tokens.tolist() == [[1, 3, -1, -1, 9, 6]]


@pytest.mark.parametrize("name", image_prompts.FRAMES)
def test_frames_of_models_have_both_places(name):
    frame = image_prompts.FRAMES[name]
    assert frame.text.count("{image}") == frame.text.count("{instruction}") == 1
    assert frame.joined in ("inside", "before", "apart")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"instructions": []}, "instructions must be at least one"),
        ({"instructions": [" "]}, "instructions must say something, found ' '"),
        (
            {"instructions": ["What is <image> ?"]},
            "must not hold the image's token <image>, found 'What is <image> \\?'",
        ),
        (
            {"frame": FRAME._replace(image="<img>")},
            "must have the image's token <img> as id 2: it has none",
        ),
        ({"image": Image(5, 3)}, "token <image> as id 5: its id is 2"),
        ({"frame": Frame("USER: {instruction}")}, "a frame must hold {image} once"),
        ({"frame": Frame("{image}")}, "a frame must hold {instruction} once"),
        (
            {"instructions": ["What is it ? What"]},
            "must have at most 10 tokens, found 11: 'What is it",
        ),
        ({"frame": Frame("<image> {image} {instruction}")}, "3 times, found 4: 'What is it"),
    ],
)
def test_bad_prompts_are_refused(tokenizer, changes, message):
    with pytest.raises(InputError, match=message):
        assemble(tokenizer, **changes)


def test_a_q_former_has_a_limit_of_its_own(tokenizer):
    rows = image_prompts.read_alone(tokenizer, ["Name it", "What is it ?"], longest=5)
    assert rows.tokens.tolist() == [[1, 9, 6, 0, 0], [1, 4, 5, 6, 7]]
    with pytest.raises(InputError, match="at most 4 tokens of the Q-Former, found 5"):
        image_prompts.read_alone(tokenizer, ["What is it ?"], longest=4)


def test_answers_become_texts(tokenizer):
    """Without what stands after their end, and without special tokens."""
    tokens = np.array([[9, 6, 2, 2], [2, 2, 2, 2], [4, 5, 6, 7]])
    found = image_prompts.texts(tokenizer, tokens, np.array([3, 1, 4]))
    assert found == ["Name it", "", "What is it ?"]
