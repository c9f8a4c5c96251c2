"""Machines by name, and what was measured in the place of the table's guesses."""

import json

import pytest
from refusals import refused

from jaxalign.pricing import chips
from jaxalign.pricing.work import KINDS, Layout


@pytest.mark.parametrize(
    "name,chip,number,hosts",
    [("v5e-8", "v5e", 8, 1), ("h200", "h200", 1, 1), ("V5P-16", "v5p", 16, 4)],
)
def test_machines_by_name(name, chip, number, hosts):
    found = chips.find(name)
    assert (found.chip.name, found.num_devices, found.hosts) == (chip, number, hosts)
    assert found.name == name.lower()


@pytest.mark.parametrize("name", ["v3-8", "v5e-0", "v5e-x", "", "h200-"])
def test_other_names_are_refused(name):
    if name == "h200-":
        assert chips.find(name).num_devices == 1
        return
    with refused("chip must be one of v4, v5e, v5p, v6e, a100, l4, h100, h200, cpu", repr(name)):
        chips.find(name)


def test_a_mesh_must_use_every_device():
    machine = chips.find("v5e-8")
    assert machine.layout((-1, 2)) == Layout(4, 2, is_cpu=False, is_tpu=True)
    assert chips.find("h200-8").layout((-1, 2)) == Layout(4, 2, is_cpu=False)
    with refused("mesh must use every device of v5e-8: 3 x 2 = 6, but there are 8"):
        machine.layout((3, 2))


def test_jobs_at_a_time_share_the_memory_of_a_host_and_no_accelerators():
    alone = chips.find("cpu")
    each = chips.shared(alone, 2)
    assert 2 * each.chip.memory == alone.chip.memory and each.name == alone.name
    assert chips.shared(alone, 0) == alone
    assert chips.shared(chips.find("h200"), 8) == chips.find("h200")


def test_every_chip_has_a_rate_for_every_kind_of_work():
    for chip in (*chips.CHIPS.values(), chips.cpu()):
        assert set(chip.efficiency) == set(KINDS)
        assert all(0 < chip.rate(kind) < chip.peak(kind) for kind in KINDS)
        assert chip.peak("bfloat16") >= chip.peak("float32") >= chip.peak("eigen")


def test_a_kind_of_device_is_that_of_one_chip():
    known = {"NVIDIA H200": "h200", "TPU v5 lite": "v5e", "NVIDIA L4": "l4"}
    known["NVIDIA A100-SXM4-80GB"] = "a100"
    assert {kind: chips.of_kind(kind).name for kind in known} == known
    assert chips.of_kind("NVIDIA L40S") is None and chips.of_kind("cpu") is None


def content(**changes):
    found = {"version": chips.VERSION, "chip": "v5e", "measured": "2026-01-02"}
    found |= {name: 2.0 for name in chips.MEASURED}
    return found | {"efficiency": dict.fromkeys(KINDS, 0.5)} | changes


def test_a_calibration_replaces_the_table(tmp_path):
    path = tmp_path / "v5e.json"
    path.write_text(json.dumps(content()))
    found = chips.calibrated(chips.find("v5e-8"), str(path))
    assert found.num_devices == 8 and found.chip.measured == "2026-01-02"
    assert found.chip.rate("bfloat16") == 0.5 * 1.97e14 and found.chip.fit_s == 2.0
    assert found.chip.memory == chips.CHIPS["v5e"].memory


@pytest.mark.parametrize(
    "changes",
    [{"version": 0}, {"fit_s": -1}, {"read": "fast"}, {"efficiency": {}}, {"fit_s": float("nan")}],
)
def test_what_is_no_calibration_is_refused(tmp_path, changes):
    path = tmp_path / "v5e.json"
    path.write_text(json.dumps(content(**changes)))
    with refused(str(path), "jaxalign.calibrate", "run it again"):
        chips.calibrated(chips.find("v5e"), str(path))


def test_a_calibration_of_another_chip_or_none_is_refused(tmp_path):
    path = tmp_path / "v5e.json"
    path.write_text(json.dumps(content()))
    with refused("is of v5e, and not of h200"):
        chips.calibrated(chips.find("h200"), str(path))
    with refused("calibration must be a file", "No such file"):
        chips.calibrated(chips.find("h200"), str(tmp_path / "none.json"))
