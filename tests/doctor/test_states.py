"""Faults of a network, each found by the check that looks for it; and sound ones pass."""

import dataclasses
import html

import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign.data.text import batches
from jaxalign.doctor import __main__ as command
from jaxalign.doctor import examination, findings, patient, states
from jaxalign.doctor.findings import FAILED, OK
from jaxalign.models import zoo
from jaxalign.models.families import decoder, layers


@pytest.fixture(scope="module")
def stimuli():
    """Few words of the embedded passages."""
    return patient.rows_of(patient.find_stimuli("", None), range(50, 75))


def examined(golden, name, stimuli, mesh):
    return patient.Patient(model=zoo.find(str(golden / name), None), stimuli=stimuli, mesh=mesh)


def by_check(found):
    return {x.check: x for x in found}


def test_a_distance_is_in_units_of_the_spread(rng):
    expected = 100 + rng.normal(size=(3, 40, 8))
    expected[:, 0] += 1e4  # as the first token of many networks
    found = expected.copy()
    found[1, 7] += 0.5
    apart = findings.apart(found, expected)
    spread = findings.spread(expected)
    np.testing.assert_allclose(apart[1, 7], 0.5 * np.sqrt(8) / spread[1], rtol=1e-12)
    assert (np.delete(apart.ravel(), 40 + 7) == 0).all()
    assert 2 < spread.min() and spread.max() < 3.5
    found[2, 3, 1] = np.nan
    assert findings.farthest(findings.apart(found, expected)) == (np.inf, 2)


@pytest.mark.slow
def test_left_padding_is_found(golden, stimuli, mesh, monkeypatch):
    own = examined(golden, "decoders/gpt2", stimuli, mesh)
    network = own.load()
    found, _ = states.same_however_passed(own, network)
    assert [x.status for x in found] == [OK] * len(found)

    pad = batches.pad

    def on_the_left(*args, **kwargs):
        batch = pad(*args, **kwargs)
        moved = batch.mask.shape[1] - batch.mask.sum(axis=1)
        roll = lambda x: np.stack([np.roll(row, by) for row, by in zip(x, moved, strict=True)])
        shift = lambda reads: reads._replace(
            token=np.minimum(reads.token + moved[:, None], batch.mask.shape[1] - 1)
        )
        predicted = batch.predicted and shift(batch.predicted)
        return batch._replace(
            tokens=roll(batch.tokens),
            mask=roll(batch.mask),
            pooled=shift(batch.pooled),
            predicted=predicted,
        )

    monkeypatch.setattr(batches, "pad", on_the_left)
    found, _ = states.same_however_passed(own, network)
    assert by_check(found)["one pass as separate passes"].status == FAILED


@pytest.mark.slow
def test_a_head_behind_another_norm_is_found(golden, stimuli, mesh, monkeypatch):
    own = examined(golden, "decoders/gpt2", stimuli, mesh)
    found = by_check(states.head_and_surprisal(own, own.load()))
    assert {x.status for x in found.values()} == {OK}
    run = decoder.Network.__call__

    def untied(self, *args, **kwargs):
        output = run(self, *args, **kwargs)
        return dataclasses.replace(output, final=output.final * jnp.float32(1.1))

    monkeypatch.setattr(decoder.Network, "__call__", untied)
    patient._states.clear_cache()
    found = by_check(states.head_and_surprisal(own, own.load()))
    patient._states.clear_cache()
    assert found["the head reads the last layer"].status == FAILED


@pytest.mark.slow
def test_positions_in_bfloat16_are_found(golden, stimuli, mesh, monkeypatch):
    own = examined(golden, "decoders/mistral", stimuli, mesh)
    longer = dataclasses.replace(own.model.config, max_length=states.LONGEST)
    own = dataclasses.replace(own, model=dataclasses.replace(own.model, config=longer))
    network = own.load()
    found, by_layer, by_position = states.precisions(own, network)
    assert {x.check: x.status for x in found}["passes in bfloat16"] != FAILED
    assert len(by_layer) == longer.num_layers + 1
    assert len(by_position) == 8

    turns = layers.Rope.turns
    load = patient.Patient.load

    def rounded(self, positions):
        return turns(self, positions.astype(jnp.bfloat16).astype(jnp.int32))

    def load_rounded(self, dtype="float32"):
        if dtype == "bfloat16":
            monkeypatch.setattr(layers.Rope, "turns", rounded)
            patient._states.clear_cache()
        return load(self, dtype)

    monkeypatch.setattr(patient.Patient, "load", load_rounded)
    found, _, _ = states.precisions(own, network)
    patient._states.clear_cache()
    assert {x.check: x.status for x in found}["passes in bfloat16"] == FAILED


@pytest.mark.slow
@pytest.mark.parametrize("name", ["decoders/gemma2", "roberta"])
def test_sound_networks_pass(golden, stimuli, mesh, name):
    own = examined(golden, name, stimuli, mesh)
    lines = []
    record = examination.examine(own, tell=lines.append)
    assert len(lines) == len(record.findings)
    assert [x.check for x in record.findings if x.status == FAILED] == []
    page = examination.page(own, record)
    assert "0 failed" in page.lead
    shown = html.unescape(page.html)
    assert all(x.check in shown for x in record.findings)


@pytest.mark.slow
def test_the_command_ends_with_1_where_a_check_fails(golden, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(patient, "NUM_PARTS", 12)
    argv = [str(golden / "decoders/gpt2"), "--out", str(tmp_path / "sound")]
    assert command.main(argv) == 0
    assert (tmp_path / "sound/index.html").is_file()
    assert (tmp_path / "sound/layers.csv").is_file()
    monkeypatch.setattr(states, "SAME", -1.0)
    argv[-1] = str(tmp_path / "failed")
    assert command.main(argv) == 1
    assert "FAILED" in capsys.readouterr().out
