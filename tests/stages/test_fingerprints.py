"""Which artefacts are made again when something changes: those that depend on it, and no others.

Nothing is made here: a run is planned, one input is changed, and the run is planned once more. The
tables say which artefacts must have another fingerprint then; all others must have the same.
"""

import dataclasses
import functools
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import reading
import tiny

from jaxalign import config as config_lib
from jaxalign.data import datasets, localizer
from jaxalign.data.schema import Responses
from jaxalign.io import rows as rows_lib
from jaxalign.io import run_dir, store
from jaxalign.literature import protocols, published
from jaxalign.reporting import page
from jaxalign.stages import (
    Job,
    behavior,
    ceiling,
    collect,
    encode,
    extract,
    imported,
    localize,
    next_word,
    properties,
    report,
    rsa,
    similarity,
    simulate_instructions,
    simulate_responses,
    tune,
)

STAGES = {
    "tune": tune,
    "extract": extract,
    "imported": imported,
    "simulate": simulate_responses,
    "encode": encode,
    "similarity": similarity,
    "rsa": rsa,
    "localize": localize,
    "behavior": behavior,
    "next_word": next_word,
    "ceiling": ceiling,
    "instructions": simulate_instructions,
    "properties": properties,
    "collect": collect,
    "report": report,
}
TEMPLATE = "{% for turn in messages %}{{ turn.role + ': ' + turn.content }}{% endfor %}"


class World:
    """Models, data and tables that a test may change, and the plans of runs on them."""

    def __init__(self, root, mesh, rng):
        self.root, self.mesh = root, mesh
        for name in ("bert", "llama"):
            shutil.copytree(tiny.GOLDEN / name, root / name)
        for name, write in (("sentences", tiny.write_sentences), ("timed", tiny.write_timed)):
            write(root / name, rng)
        tiny.write_sentences(root / "alone", rng, num_subjects=1)
        reading.write(root / "reading", rng, num_words=20)
        (root / "items").mkdir()
        for name in localizer.FILES.values():
            lines = [" ".join(rng.choice(tiny.WORDS, 12)) for _ in range(20)]
            (root / "items" / name).write_text("\n".join(lines))
        (root / "freq.csv").write_text("word,count\nthe,9\ndog,3\nsat,2\n")
        np.save(root / "vectors.npy", rng.standard_normal((2, 3)))
        (root / "vectors.vocab").write_text("the\ndog\n")
        (root / "text.txt").write_text(" ".join(rng.choice(tiny.WORDS, 150)))
        given = pd.read_csv(root / "sentences/stimuli.csv").stimulus_id.to_numpy(str)
        for name in ("given", "others"):
            values = rng.standard_normal((len(given), 4)).astype(np.float32)
            np.savez(root / f"{name}.npz", stimulus_id=given, layer_0=values, layer_1=values)
        self.seed = 0

    def path(self, name):
        return str(self.root / name)

    def plan(self, data, **configs):
        """Return the fingerprint of each artefact by its stage and name."""
        dataset = None
        if data == "reading":
            dataset = reading.dataset(self.root / "reading")
        elif data:
            dataset = datasets.find(data if data == "demo" else self.path(data), None)
        job = Job(
            workdir=self.root / "work",
            data_root=None,
            dataset=dataset,
            mesh=self.mesh,
            seed=self.seed,
        )
        upstream, found = {}, {}
        for name, config in configs.items():
            upstream[name] = [x.artefact for x in STAGES[name].plan(config, job, upstream)]
            found |= {f"{name} {x.name}".strip(): x.fingerprint for x in upstream[name]}
        return found


@pytest.fixture
def world(tmp_path, mesh, rng):
    return World(tmp_path, mesh, rng)


@pytest.fixture(scope="module")
def still(tmp_path_factory, mesh):
    """A world in which only settings change."""
    return World(tmp_path_factory.mktemp("still"), mesh, np.random.default_rng(0))


@functools.cache
def first(plan, still):
    """Return what a plan without other settings gives."""
    return plan(still)


def moved(before, after):
    """Return the artefacts of both plans that have another fingerprint."""
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


# Changes of inputs: each takes the world and pytest's monkeypatch.


def edit(path, old, new):
    def change(world, monkeypatch):
        file = world.root / path
        content = file.read_text()
        assert old in content
        file.write_text(content.replace(old, new))

    return change


def weights(model):
    """Change one number of a network's weights."""

    def change(world, monkeypatch):
        file = world.root / model / "model.safetensors"
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)

    return change


def tokenizer(model):
    """Let the tokenizer cut a word of the stimuli otherwise."""

    def change(world, monkeypatch):
        file = world.root / model / "tokenizer.json"
        content = json.loads(file.read_text())
        vocabulary = content["model"]["vocab"]
        first, second = [x for x in vocabulary if x.isalpha()][-2:]
        vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
        file.write_text(json.dumps(content))

    return change


def unused_part_of_tokenizer(model):
    """Ask for truncation, which is switched off when the file is read."""

    def change(world, monkeypatch):
        file = world.root / model / "tokenizer.json"
        content = json.loads(file.read_text())
        content["truncation"] = {
            "direction": "Right",
            "max_length": 4,
            "strategy": "LongestFirst",
            "stride": 0,
        }
        file.write_text(json.dumps(content))

    return change


def responses(data, **fields):
    """Change fields of the responses, each by a function of its value."""

    def change(world, monkeypatch):
        file = world.root / data / "responses.npz"
        found = Responses.load(file)
        changed = {name: new(getattr(found, name)) for name, new in fields.items()}
        file.write_bytes(dataclasses.replace(found, **changed).to_bytes())

    return change


def last(values):
    """Change the last number by as little as can be."""
    values = values.copy()
    values[-1, -1] = np.nextafter(values[-1, -1], np.inf)
    return values


def protocol(name, **fields):
    """Change a row of the table of protocols."""

    def change(world, monkeypatch):
        row = dataclasses.replace(protocols.find(name), **fields)
        monkeypatch.setitem(protocols.PROTOCOLS, name, row)

    return change


def constant(module, name, value):
    def change(world, monkeypatch):
        monkeypatch.setattr(module, name, value)

    return change


def seed(world, monkeypatch):
    world.seed = 1


# A run on sentences: a network, all kinds of controls, a partition and tests.
CONTROLS = ("length", "position", "frequency", "word_vectors", "oasm")
CONTROLS += ("shifted", "shuffled", "static_embedding", "untrained")
SCORED = {
    "num_folds": 4,
    "groups": "passage",
    "group_seed": 3,
    "controls": CONTROLS,
    "partition": ("length", "frequency"),
    "permutations": 20,
    "orders": "row",
}
TRAINED = {"extract bert"}
UNTRAINED = {"extract bert untrained"}
STATIC = {"extract bert static"}
STORES = TRAINED | UNTRAINED | STATIC
STIMULUS = {f"encode bert {x}" for x in CONTROLS[:5]}
OF_TRAINED = {"encode bert", "encode bert shifted", "encode bert shuffled"}
PARTITION = {"encode bert with length + frequency"}
TESTS = {"encode bert permuted"}
OF_UNTRAINED, OF_STATIC = {"encode bert untrained"}, {"encode bert static_embedding"}
SCORES = STIMULUS | OF_TRAINED | OF_UNTRAINED | OF_STATIC
ENCODED = SCORES | PARTITION | TESTS
PAGE = {"report"}


def plan_sentences(world, *, extraction=None, scored=None, shown=None):
    return world.plan(
        "sentences",
        extract=extract.Config(
            **{"models": (world.path("bert"),), "static_embedding": True} | (extraction or {})
        ),
        encode=encode.Config(
            **SCORED
            | {"frequency_table": world.path("freq.csv"), "word_vectors": world.path("vectors.npy")}
            | (scored or {})
        ),
        report=report.Config(**shown or {}),
    )


ALL = STORES | ENCODED | PAGE
NETWORK = TRAINED | OF_TRAINED | PARTITION | TESTS
SENTENCES = {
    "weights": (weights("bert"), NETWORK | STATIC | OF_STATIC | PAGE),
    "tokenizer": (tokenizer("bert"), STORES | (ENCODED - STIMULUS) | PAGE),
    "part of the tokenizer that plays no part": (unused_part_of_tokenizer("bert"), set()),
    "text of a stimulus": (edit("sentences/stimuli.csv", "dog", "cat"), ALL),
    "passage of a stimulus": (edit("sentences/stimuli.csv", "passage3", "passage33"), ALL),
    "a response": (responses("sentences", values=last), ENCODED | PAGE),
    "name of an ROI": (
        responses("sentences", roi=lambda x: ["C" if name == "B" else name for name in x]),
        ENCODED | PAGE,
    ),
    "a subject": (
        responses("sentences", subject=lambda x: ["z" if s == "s0" else s for s in x]),
        ENCODED | PAGE,
    ),
    "a file that is no part of the data set": (edit("text.txt", "dog", "cat"), set()),
    "frequencies": (
        edit("freq.csv", "dog,3", "dog,4"),
        {"encode bert frequency"} | PARTITION | PAGE,
    ),
    "vocabulary beside word vectors": (
        edit("vectors.vocab", "dog", "cat"),
        {"encode bert word_vectors"} | PAGE,
    ),
    "seed of the run": (seed, SCORES | PARTITION | TESTS | PAGE),
    "format of stores": (constant(store, "FORMAT_VERSION", 99), ALL - STIMULUS),
    "schema of rows": (constant(rows_lib, "SCHEMA_VERSION", 99), ENCODED | PAGE),
    "what all pages have": (constant(page, "VERSION", 99), PAGE),
    "a protocol that is not used": (protocol("huth", metric="r2"), set()),
}


@pytest.mark.parametrize("name", SENTENCES)
def test_inputs_of_a_run_on_sentences(world, monkeypatch, name):
    change, expected = SENTENCES[name]
    before = plan_sentences(world)
    assert before.keys() == ALL
    change(world, monkeypatch)
    assert moved(before, plan_sentences(world)) == expected


# Settings: field -> another value, and what moves. A set stands for what is planned both times.
EXTRACTION = {
    "context": ("accumulate", STORES | ENCODED | PAGE),
    "one_stream": (True, STORES | (ENCODED - STIMULUS) | PAGE),
    "pooling": ("last", (STORES - STATIC) | (ENCODED - OF_STATIC) | PAGE),
    "tap": ("mlp", (STORES - STATIC) | (ENCODED - STIMULUS - OF_STATIC) | PAGE),
    "prompt": ("Read: ", STORES | ENCODED | PAGE),
    "suffix": (" Now.", STORES | (ENCODED - STIMULUS) | PAGE),
    "joining": ("space", STORES | (ENCODED - STIMULUS) | PAGE),
    "t5_text": ("encoder", set()),  # of a T5 alone
    "tower": ("text", set()),  # of a checkpoint of two alone
    "untrained_seed": (5, UNTRAINED | OF_UNTRAINED | PAGE),
    "compute_dtype": ("bfloat16", (STORES - STATIC) | (ENCODED - STIMULUS - OF_STATIC) | PAGE),
    "store_dtype": ("float16", STORES | (ENCODED - STIMULUS) | PAGE),
    "shard_stimuli": (7, STORES | (ENCODED - STIMULUS) | PAGE),
}
ENCODING = {
    "alphas": ((1.0, 10.0), ENCODED | PAGE),
    "search": ("grid", ENCODED | PAGE),
    "num_folds": (5, ENCODED | PAGE),
    "groups": ("dataset", ENCODED | PAGE),
    "group_seed": (4, ENCODED | PAGE),
    "standardize": (False, ENCODED | PAGE),
    "pca": (3, ENCODED - STIMULUS | PAGE),
    "units": (5, ENCODED - STIMULUS | PAGE),
    "downsample": ("sum", set()),  # of timed stimuli alone
    "shift": (0.25, {"encode bert shifted"} | PAGE),
    "shuffle": ("all", {"encode bert shuffled"} | PAGE),
    "oasm_sigma": (2.0, {"encode bert oasm"} | PAGE),
    "partition_draws": (3, PARTITION | PAGE),
    "partition_rounds": (7, PARTITION | PAGE),
    "permutations": (21, TESTS | PAGE),
    "orders": ("shift", TESTS | PAGE),
    "order_block": (5, set()),  # of blocks alone
    "layers": ((1, 2), OF_TRAINED | OF_UNTRAINED | PARTITION | TESTS | PAGE),
    "rois": (("A",), ENCODED | PAGE),
    "ceiling_splits": (7, SCORES | PAGE),
    "protocol_ceiling": (0.3, set()),  # of protocols by name alone
    "max_subsets": (4, set()),
}
SHOWN = {
    "title": ("Another", PAGE),
    "instruction": ("Read: ", PAGE),
    # These are of the comparison of models.
    "apart": (("bert",), set()),
    "predictors": (("width",), set()),
    "num_resamples": (99, set()),
}


@pytest.mark.parametrize(
    "stage,field,value,expected",
    [
        (stage, field, *case)
        for stage, cases in (("extraction", EXTRACTION), ("scored", ENCODING), ("shown", SHOWN))
        for field, case in cases.items()
    ],
)
def test_settings_of_a_run_on_sentences(still, stage, field, value, expected):
    before = first(plan_sentences, still)
    assert moved(before, plan_sentences(still, **{stage: {field: value}})) == expected


# Timed words under a protocol by name, with its ceiling.

TIMED_SCORES = {"encode bert", "encode bert word_length", "encode bert position"}
TIMED_ALL = {"extract bert", "encode ceiling of brainscore-linear-2023"} | TIMED_SCORES | PAGE


def plan_timed(world, **scored):
    scored = {
        "protocol": "brainscore-linear-2023",
        "max_subsets": 3,
        "controls": ("word_length", "position"),
    } | scored
    return world.plan(
        "timed",
        extract=extract.Config(
            models=(world.path("bert"),),
            context="accumulate:slide",
            pooling="last",
            untrained_seed=-1,
        ),
        encode=encode.Config(**scored),
        report=report.Config(),
    )


PROTOCOL = {
    "a number of folds": protocol(
        "brainscore-linear-2023",
        folds=dataclasses.replace(protocols.find("brainscore-linear-2023").folds, num=9),
    ),
    "a summary": protocol(
        "brainscore-linear-2023",
        aggregation=dataclasses.replace(
            protocols.find("brainscore-linear-2023").aggregation, targets="mean"
        ),
    ),
    "a small number": protocol("brainscore-linear-2023", epsilon=1e-8),
}


@pytest.mark.parametrize("name", PROTOCOL)
def test_rows_of_the_table_of_protocols(world, monkeypatch, name):
    before = plan_timed(world)
    assert before.keys() == TIMED_ALL
    PROTOCOL[name](world, monkeypatch)
    assert moved(before, plan_timed(world)) == TIMED_ALL - {"extract bert"}


def test_where_a_protocol_is_written_down_is_in_the_report_alone(world, monkeypatch):
    before = plan_timed(world)
    protocol("brainscore-linear-2023", source="elsewhere")(world, monkeypatch)
    assert moved(before, plan_timed(world)) == PAGE


CEILING = {"encode ceiling of brainscore-linear-2023"}
UNDER_PROTOCOL = {
    "max_subsets": (4, CEILING | TIMED_SCORES | PAGE),
    "delays": ((1, 2), TIMED_SCORES | PAGE),
    "downsample": ("sum", {"encode bert", "encode bert word_length"} | PAGE),
    "ceiling_splits": (7, TIMED_SCORES | PAGE),
}


@pytest.mark.parametrize("field", UNDER_PROTOCOL)
def test_settings_under_a_protocol(still, field):
    value, expected = UNDER_PROTOCOL[field]
    assert moved(first(plan_timed, still), plan_timed(still, **{field: value})) == expected


def test_published_ceiling_is_part_of_the_scores(still):
    """There is no ceiling to find then."""
    plan = lambda value: plan_timed(still, protocol_ceiling=value)
    assert moved(plan(0.3), plan(0.4)) == TIMED_SCORES | PAGE


def test_test_runs_make_other_folds(still):
    test_set = {"protocol": "oota2025-own-reading", "max_subsets": 0}
    plan = lambda *runs: plan_timed(still, **test_set, test_runs=runs)
    assert moved(plan("run0"), plan("run1")) == TIMED_SCORES | PAGE


def test_gap_makes_other_folds(still):
    plan = lambda gap: plan_timed(still, protocol="", gap=gap)
    assert moved(plan(1), plan(2)) == TIMED_SCORES | PAGE


def test_order_blocks_are_of_block_orders(still):
    plan = lambda size: plan_timed(
        still, protocol="", permutations=20, orders="block", order_block=size
    )
    assert moved(plan(5), plan(6)) == {"encode bert permuted"} | PAGE


# Planted responses: recordings play no part.

PLANTED = {"simulate bert layer 1"}


def plan_planted(world, **planting):
    planting = {"model": "bert", "layer": 1} | planting
    return world.plan(
        "demo",
        extract=extract.Config(models=(world.path("bert"),), untrained_seed=-1),
        simulate=simulate_responses.Config(**planting),
        encode=encode.Config(controls=("length",)),
        ceiling=ceiling.Config(),
        report=report.Config(),
    )


OF_CEILING = {"ceiling demo", "ceiling report"}
OF_PLANTED = PLANTED | {"encode bert", "encode bert length"} | OF_CEILING | PAGE
PLANTING = {"num_subjects": 3, "num_targets": 5, "noise_sd": 0.5}


@pytest.mark.parametrize("field", PLANTING)
def test_settings_of_planted_responses(still, field):
    after = plan_planted(still, **{field: PLANTING[field]})
    assert moved(first(plan_planted, still), after) == OF_PLANTED


@pytest.mark.slow
def test_words_that_are_planted_are_not_brought_to_samples(still):
    """Responses to single words have no TRs, though the words have times."""

    def plan(how):
        return still.plan(
            "timed",
            extract=extract.Config(models=(still.path("bert"),), untrained_seed=-1),
            simulate=simulate_responses.Config(model="bert", layer=1),
            encode=encode.Config(controls=("length",), downsample=how),
            similarity=similarity.Config(downsample=how),
        )

    assert moved(plan("mean"), plan("sum")) == set()


def test_layer_and_model_of_planted_responses(world):
    (first,) = {plan_planted(world)["simulate bert layer 1"]}
    assert plan_planted(world, layer=2)["simulate bert layer 2"] != first
    shutil.copytree(world.root / "bert", world.root / "other")
    config = extract.Config(models=(world.path("other"),), untrained_seed=-1)
    planting = simulate_responses.Config(model="other", layer=1)
    found = world.plan("demo", extract=config, simulate=planting)
    assert found["simulate other layer 1"] != first


@pytest.mark.slow
def test_inputs_of_planted_responses(world, monkeypatch):
    before = plan_planted(world)
    seed(world, monkeypatch)
    seeded = plan_planted(world)
    assert moved(before, seeded) == OF_PLANTED
    weights("bert")(world, monkeypatch)
    assert moved(seeded, plan_planted(world)) == OF_PLANTED | {"extract bert"}


# Chat templates, in either file that they may lie in.


def chat(world, template, file):
    """Make the small decoder a model of chats."""
    folder = world.root / "llama"
    config = {"tokenizer_class": "PreTrainedTokenizerFast"}
    if file == "tokenizer_config.json":
        config["chat_template"] = template
    else:
        (folder / file).write_text(template)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def plan_chat(world, **settings):
    settings = {"chat": True, "untrained_seed": -1} | settings
    return world.plan(
        "sentences", extract=extract.Config(models=(world.path("llama"),), **settings)
    )


@pytest.mark.parametrize("file", ["tokenizer_config.json", "chat_template.jinja"])
def test_chat_templates(world, file):
    """A template counts as it is rendered: a remark in it changes nothing that is read."""
    chat(world, TEMPLATE, file)
    before = plan_chat(world)
    chat(world, "{# a remark #}" + TEMPLATE, file)
    assert moved(before, plan_chat(world)) == set()
    chat(world, TEMPLATE.replace(": ", ", "), file)
    assert moved(before, plan_chat(world)) == {"extract llama"}
    plain = plan_chat(world, chat=False)
    chat(world, TEMPLATE, file)
    assert moved(plain, plan_chat(world, chat=False)) == set()


DECODER = {"chat": False, "system": "You read.", "surprisal": True}


@pytest.mark.parametrize("field", DECODER)
def test_settings_of_a_decoder(world, field):
    chat(world, TEMPLATE, "chat_template.jinja")
    after = plan_chat(world, **{field: DECODER[field]})
    assert moved(plan_chat(world), after) == {"extract llama"}


def test_token_that_begins_rows(world):
    file = world.root / "llama/tokenizer.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"post_processor": None}))  # which adds one itself
    plan = lambda bos: plan_chat(world, chat=False, bos=bos)
    assert moved(plan(""), plan("<s>")) == {"extract llama"}


# Similarity, and masks of units.

COMPARED = {"similarity bert", "similarity bert untrained"}


def plan_similarity(world, data="sentences", **settings):
    return world.plan(
        data,
        extract=extract.Config(models=(world.path("bert"),)),
        similarity=similarity.Config(**settings),
    )


SIMILARITY = {
    "measures": (("cka",), True),
    "comparison": ("pearson", True),
    "standardize": (False, True),
    "layers": ((1, 2), True),
    "rois": (("A",), True),
    "layer_matrix": (False, True),
    "downsample": ("sum", False),  # of timed stimuli alone
    "unit_set": ("random", False),  # where there are units
}


@pytest.mark.parametrize("field", SIMILARITY)
def test_settings_of_similarity(still, field):
    value, moves = SIMILARITY[field]
    after = plan_similarity(still, **{field: value})
    expected = COMPARED | {"similarity report"} if moves else set()
    assert moved(first(plan_similarity, still), after) == expected


@pytest.mark.parametrize("field,value", [("delays", (1, 2)), ("downsample", "sum")])
def test_settings_of_similarity_to_time_series(world, field, value):
    after = plan_similarity(world, "timed", **{field: value})
    assert moved(plan_similarity(world, "timed"), after) == COMPARED | {"similarity report"}


def test_comparison_is_of_dissimilarities(still):
    plan = lambda **x: plan_similarity(still, measures=("cka",), **x)
    assert moved(plan(), plan(comparison="pearson")) == set()


@pytest.mark.slow
def test_inputs_of_similarity(world, monkeypatch):
    before = plan_similarity(world)
    seed(world, monkeypatch)  # nothing is drawn
    assert moved(before, plan_similarity(world)) == set()
    weights("bert")(world, monkeypatch)
    found = moved(before, plan_similarity(world))
    assert found == {"extract bert", "similarity bert", "similarity report"}
    before = plan_similarity(world)
    responses("sentences", values=last)(world, monkeypatch)
    assert moved(before, plan_similarity(world)) == COMPARED | {"similarity report"}


@pytest.mark.slow
def test_masks_of_units_count_by_their_content(world):
    masks = np.zeros((4, 32), bool)
    masks[1, :5] = True
    name = world.root / "units.npz"
    plan = lambda: plan_similarity(world, units=str(name))
    np.savez(name, language=masks, random=masks[::-1], t=masks)
    before = plan()
    name.rename(world.root / "moved.npz")
    assert moved(before, plan_similarity(world, units=world.path("moved.npz"))) == set()
    np.savez(name, language=masks, random=masks[:, ::-1], t=masks)
    assert moved(before, plan()) == COMPARED | {"similarity report"}
    other = plan_similarity(world, units=str(name), unit_set="random")
    assert moved(plan(), other) == COMPARED | {"similarity report"}


LOCALIZED = {"localize bert", "localize bert untrained", "localize report"}


def plan_masks(world, **settings):
    return world.plan(
        "items",
        extract=extract.Config(models=(world.path("bert"),)),
        localize=localize.Config(**{"percent": 10.0} | settings),
    )


@pytest.mark.parametrize("field,value", [("percent", 20.0), ("num_units", 4), ("embedding", True)])
def test_settings_of_masks(still, field, value):
    assert moved(first(plan_masks, still), plan_masks(still, **{field: value})) == LOCALIZED


def test_inputs_of_masks(world, monkeypatch):
    before = plan_masks(world)
    # As many units are as many units.
    assert moved(before, plan_masks(world, num_units=9, percent=3.0)) == set()
    weights("bert")(world, monkeypatch)
    after = plan_masks(world)
    found = {"extract bert", "localize bert", "localize report"}
    assert moved(before, after) == found
    seed(world, monkeypatch)
    assert moved(after, plan_masks(world)) == LOCALIZED


# Reading times.


def plan_reading(world, **settings):
    return world.plan(
        "reading",
        extract=extract.Config(models=(world.path("llama"),), surprisal=True),
        behavior=behavior.Config(**settings),
    )


READ = {"behavior reading", "behavior report"}
BEHAVIOR = {
    "baseline": ("length",),
    "spillover": 1,
    "sentence_initial": True,
    "log_times": True,
    "mixed": False,
    "published": False,
    "offsets": (0,),
    "ceiling_splits": 3,
}


@pytest.mark.parametrize("field", BEHAVIOR)
def test_settings_of_reading_times(still, field):
    assert (
        moved(first(plan_reading, still), plan_reading(still, **{field: BEHAVIOR[field]})) == READ
    )


def change_reading(world, name, change):
    kept = reading.read(world.root / "reading")
    np.savez(world.root / "reading/reading.npz", **kept | {name: change(kept[name])})


@pytest.mark.parametrize("name", ["times", "position", "bits", "log_frequency"])
def test_inputs_of_reading_times(world, name):
    """Times, places in sentences, published surprisal, frequencies: networks read none of them."""
    before = plan_reading(world)
    change_reading(world, name, lambda x: np.r_[x[:-1], x[-1:] + 1])
    assert moved(before, plan_reading(world)) == READ


def test_weights_behind_reading_times(world, monkeypatch):
    before = plan_reading(world)
    weights("llama")(world, monkeypatch)
    assert moved(before, plan_reading(world)) == {"extract llama"} | READ


# Losses on a text.


def plan_text(world, **settings):
    base = {"models": (world.path("llama"),), "text": world.path("text.txt"), "context": 24}
    return world.plan("", next_word=next_word.Config(**base | settings))


LOSSES, UNTRAINED_LOSSES = {"next_word llama"}, {"next_word llama untrained"}
LOSS_PAGE = {"next_word report"}
EVERY_LOSS = LOSSES | UNTRAINED_LOSSES | LOSS_PAGE
NEXT_WORD = {
    "context": (20, EVERY_LOSS),
    "stride": (5, EVERY_LOSS),
    "block_tokens": (32, LOSS_PAGE),
    "untrained_seed": (3, UNTRAINED_LOSSES | LOSS_PAGE),
    "compute_dtype": ("bfloat16", EVERY_LOSS),
    "shard_windows": (5, EVERY_LOSS),
}


@pytest.mark.parametrize("field", NEXT_WORD)
def test_settings_of_losses(still, field):
    value, expected = NEXT_WORD[field]
    assert moved(first(plan_text, still), plan_text(still, **{field: value})) == expected


@pytest.mark.slow
def test_inputs_of_losses(world, monkeypatch):
    before = plan_text(world)
    weights("llama")(world, monkeypatch)
    assert moved(before, plan_text(world)) == LOSSES | LOSS_PAGE
    for change in (edit("text.txt", "dog", "cat"), tokenizer("llama")):
        before = plan_text(world)
        change(world, monkeypatch)
        assert moved(before, plan_text(world)) == EVERY_LOSS


# Ceilings of responses.


def plan_ceilings(world, **settings):
    return world.plan("sentences", ceiling=ceiling.Config(**settings))


CEILINGS = {
    "kinds": (("isc",), True),
    "rois": (("A",), True),
    "confidence": (0.9, True),
    "num_resamples": (9, True),
    "block": (3, True),
    "null": ("phase", True),
    "num_nulls": (9, True),
    "num_splits": (9, True),
    "splits": ("shuffled", True),
    "num_folds": (4, True),
    "gap": (1, True),
    "groups": ("passage", True),
    "alphas": ((1.0,), True),
    "subsets_per_subject": (2, True),
    "num_sizes": (3, True),
    "num_curves": (9, True),
}
OF_ISC = {"kinds", "rois", "confidence", "null", "num_nulls"}


@pytest.mark.parametrize("field", CEILINGS)
def test_settings_of_ceilings(still, field):
    value, _ = CEILINGS[field]
    assert moved(first(plan_ceilings, still), plan_ceilings(still, **{field: value}))
    if field != "kinds":
        plan = lambda **x: plan_ceilings(still, kinds=("isc",), **x)
        assert bool(moved(plan(), plan(**{field: value}))) == (field in OF_ISC)


def test_inputs_of_ceilings(world, monkeypatch):
    """The text of stimuli is none of them; which passage they are of is, where passages count."""
    before = plan_ceilings(world), plan_ceilings(world, groups="passage")
    edit("sentences/stimuli.csv", "dog", "cat")(world, monkeypatch)
    assert plan_ceilings(world) == before[0]
    edit("sentences/stimuli.csv", "passage3", "passage33")(world, monkeypatch)
    assert plan_ceilings(world) == before[0]
    assert moved(before[1], plan_ceilings(world, groups="passage"))
    seed(world, monkeypatch)
    after = plan_ceilings(world)
    assert moved(before[0], after)
    responses("sentences", values=last)(world, monkeypatch)
    assert moved(after, plan_ceilings(world))
    after = plan_ceilings(world)
    constant(rows_lib, "SCHEMA_VERSION", 99)(world, monkeypatch)
    assert moved(after, plan_ceilings(world))


# Activations that were given.


def plan_imported(world, **settings):
    base = {"models": (world.path("given.npz"), world.path("others.npz"))}
    return world.plan(
        "sentences",
        imported=imported.Config(**base | settings),
        encode=encode.Config(controls=("length",)),
    )


def test_inputs_of_activations_that_were_given(world, monkeypatch):
    before = plan_imported(world)
    file = dict(np.load(world.root / "given.npz"))
    np.savez(world.root / "given.npz", **file | {"layer_1": file["layer_1"] + 1})
    assert moved(before, plan_imported(world)) == {"imported given", "encode given"}
    before = plan_imported(world)
    constant(store, "FORMAT_VERSION", 99)(world, monkeypatch)
    networks = {"imported given", "encode given", "imported others", "encode others"}
    assert moved(before, plan_imported(world)) == networks


@pytest.mark.parametrize("field", ["context", "pooling"])
def test_what_is_known_of_activations_that_were_given(still, field):
    """Rows of controls name it too."""
    before = first(plan_imported, still)
    assert moved(before, plan_imported(still, **{field: "last words"})) == set(before)


def test_rows_and_layers_of_an_array(world):
    ids = pd.read_csv(world.root / "sentences/stimuli.csv")[["stimulus_id"]]
    ids.to_csv(world.root / "ids.csv", index=False)
    np.save(world.root / "net.npy", np.random.default_rng(0).standard_normal((len(ids), 4)))
    plan = lambda **x: world.plan(
        "sentences", imported=imported.Config(models=(world.path("net.npy"),), **x)
    )
    before = plan(rows="stimuli")
    assert moved(before, plan(rows=world.path("ids.csv"))) == set()  # the same
    ids[::-1].to_csv(world.root / "ids.csv", index=False)
    assert moved(before, plan(rows=world.path("ids.csv"))) == {"imported net"}
    assert moved(before, plan(rows="stimuli", layers=(3,))) == {"imported net"}


# The simulation of instructions.

INSTRUCTIONS = {
    "rois": ("early visual", "bodies", "faces", "places", "words"),
    "planted": ("IU1", "IC", "VQ2", "VQ3", "VQ1"),
    "beside": ("VQ2", "IU2", "", "", ""),
    "beside_share": 0.25,
    "first": ("IC", "IC", "IU2"),
    "second": ("IU2", "VQ3", "VQ1"),
    "num_subjects": 5,
    "num_voxels": 5,
    "num_samples": 301,
    "num_units": 5,
    "common": 0.4,
    "noise_sd": 2.0,
    "alphas": (1.0, 10.0),
    "num_folds": 4,
    "partition_draws": 3,
    "partition_rounds": 3,
}


@pytest.mark.parametrize("field", INSTRUCTIONS)
def test_settings_of_the_simulation_of_instructions(still, field):
    plan = lambda **x: still.plan("", instructions=simulate_instructions.Config(**x))
    assert moved(plan(), plan(**{field: INSTRUCTIONS[field]})) == {"instructions simulation"}


def test_texts_of_instructions(world, monkeypatch):
    plan = lambda: world.plan("", instructions=simulate_instructions.Config())
    before = plan()
    table = published.table(simulate_instructions.TABLE)
    changed = table.assign(instruction=table.instruction + " ")
    monkeypatch.setattr(published, "table", lambda name: changed)
    assert moved(before, plan()) == {"instructions simulation"}


# Properties of models, scores of other runs, and their report.


def plan_models(world, *, sources=("zoo", "run"), rename=(), collected=("aw2024",), **shown):
    return world.plan(
        "",
        next_word=next_word.Config(
            models=(world.path("llama"),), text=world.path("text.txt"), context=24
        ),
        properties=properties.Config(sources=sources, rename=rename),
        collect=collect.Config(published=collected),
        report=report.Config(**{"paper": "aw2024"} | shown),
    )


OF_MODELS = {
    "title": "Another",
    "apart": ("GPT2",),
    "predictors": ("width",),
    "instruction": "Read: ",
    "num_resamples": 99,
    "paper": "",
}


@pytest.mark.parametrize("field", OF_MODELS)
def test_settings_of_a_report_on_models(still, field):
    after = plan_models(still, **{field: OF_MODELS[field]})
    assert moved(first(plan_models, still), after) == PAGE


@pytest.mark.slow
def test_inputs_of_a_report_on_models(world, monkeypatch):
    before = plan_models(world)
    weights("llama")(world, monkeypatch)
    after = plan_models(world)
    assert moved(before, after) == LOSSES | LOSS_PAGE | {"properties"} | PAGE
    assert moved(after, plan_models(world, rename=("a=b",))) == {"properties"} | PAGE
    assert moved(after, plan_models(world, sources=("run", "zoo"))) == {"properties"} | PAGE
    collected = plan_models(world, collected=("aw2024", "oota2025-roi"))
    assert moved(after, collected) == {"collect"} | PAGE
    config = collect.Config(published=("aw2024",), name_protocols=True)
    plain = world.plan("", collect=dataclasses.replace(config, name_protocols=False))
    assert moved(plain, world.plan("", collect=config)) == {"collect"}
    seed(world, monkeypatch)
    assert moved(after, plan_models(world)) == PAGE


def test_what_properties_read_of_activations(world, monkeypatch):
    """Layers and width: new weights change neither."""

    def plan():
        return world.plan(
            "sentences",
            extract=extract.Config(models=(world.path("bert"),)),
            properties=properties.Config(sources=("run",)),
        )

    before = plan()
    weights("bert")(world, monkeypatch)
    assert moved(before, plan()) == {"extract bert"}


def test_scores_of_other_runs_count_by_their_content(world):
    columns = published.score_rows("aw2024")
    folder = world.root / "other/report"
    folder.mkdir(parents=True)
    plan = lambda: world.plan("", collect=collect.Config(runs=(world.path("other"),)))
    rows_lib.write(folder / "scores.parquet", columns.to_dict("records"))
    run_dir.vouch(folder, "", ["scores.parquet"])
    before = plan()
    (world.root / "other").rename(world.root / "elsewhere")
    again = world.plan("", collect=collect.Config(runs=(world.path("elsewhere"),)))
    assert moved(before, again) == set()
    (world.root / "elsewhere").rename(world.root / "other")
    rows_lib.write(folder / "scores.parquet", columns[:-1].to_dict("records"))
    run_dir.vouch(folder, "", ["scores.parquet"])
    assert moved(before, plan()) == {"collect"}


def test_tables_of_papers_whose_scores_another_run_has_collected(world, monkeypatch):
    """The report holds its rows against the other tables of their papers."""
    folder = world.root / "other/report"
    folder.mkdir(parents=True)
    rows_lib.write(folder / "scores.parquet", published.score_rows("aw2024").to_dict("records"))
    run_dir.vouch(folder, "", ["scores.parquet"])
    collected = collect.Config(runs=(world.path("other"),))
    plan = lambda: world.plan("", collect=collected, report=report.Config())
    before, known = plan(), published.paper_hash
    monkeypatch.setattr(published, "paper_hash", lambda paper: f"{known(paper)} changed")
    assert moved(before, plan()) == PAGE


# The law: every setting of every stage is changed above, or fixes no content.

# In test_extract_answers.py.
ANSWERING = ("instructions", "answer_pooling", "decoding", "top_k", "answer_tokens")
INSTRUCTED = ("ceilings", "beside", "swaps")  # in test_instructed.py

CHANGED = {
    "tune": {field.name for field in dataclasses.fields(tune.Config)},  # in test_tune.py
    "extract": {*EXTRACTION, *DECODER, "bos", *ANSWERING},
    "imported": {"context", "pooling", "rows", "layers"},
    "simulate": {*PLANTING, "model", "layer"},
    "encode": {*ENCODING, *UNDER_PROTOCOL, "test_runs", "gap", "protocol", *SCORED, *INSTRUCTED},
    "similarity": {*SIMILARITY, "delays", "units"},
    "rsa": {"distances", "comparison", "standardize", "layers"},  # in test_rsa.py
    "localize": {"percent", "num_units", "embedding"},
    "behavior": {*BEHAVIOR},
    "next_word": {*NEXT_WORD, "text"},
    "ceiling": {*CEILINGS},
    "instructions": {*INSTRUCTIONS},
    "properties": {"sources", "rename"},
    "collect": {"name_protocols", "published", "runs"},
    "report": {*OF_MODELS},
}
FREE = {
    # Padding, and with it the last digits, follow the devices just as much.
    "extract": {"batch_tokens", "models", "own_tower", "static_embedding"},
    "next_word": {"batch_tokens", "models"},
    # `models`, `beside`, `controls`, `own_tower` and `static_embedding` say which artefacts there
    # are.
    "imported": {"models"},
    "behavior": {"beside"},
    # Files by their content: the tables above change that.
    "encode": {"frequency_table", "word_vectors"},
    "report": {"track"},  # what is done with the page in addition; a change is logged again
}


@pytest.mark.parametrize("stage", STAGES)
def test_every_setting_is_changed_here(stage):
    module = STAGES[stage]
    assert config_lib.STAGES[stage].module == module.__name__
    known = CHANGED[stage] | FREE.get(stage, set())
    assert {field.name for field in dataclasses.fields(module.Config)} == known


def test_every_stage_is_planned_here():
    # Sources and machine are among their settings.
    benches = {"bench", "bench_extract", "bench_scaling"}
    assert config_lib.STAGES.keys() - benches == STAGES.keys()


@pytest.mark.parametrize("stage", ["extract", "next_word"])
def test_batches_fix_no_content(still, stage):
    if stage == "extract":
        plan = lambda **x: plan_sentences(still, extraction=x)
    else:
        plan = lambda **x: plan_text(still, **x)
    assert moved(plan(), plan(batch_tokens=64)) == set()
