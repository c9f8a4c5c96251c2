"""Activation store: what goes in comes out, resumes, and nothing wrong is read in silence."""

import dataclasses
import json
import pathlib
import re
import tempfile

import hypothesis
import hypothesis.strategies as st
import ml_dtypes
import numpy as np
import pytest
import tensorstore as ts

from jaxalign.errors import InputError
from jaxalign.io import run_dir, store

ATTRIBUTES = store.Attributes(
    fingerprint="0123456789abcdef",
    dataset="toy",
    stimuli_hash="5711",
    model="tiny",
    model_hash="ab12",
    tokenizer_hash="cd34",
    untrained_seed=-1,
    reading={"context": "window:3", "pooling": "mean"},
    layer_names=[],
    final_norm_applied=True,
    versions={"numpy": "2.0"},
)
SHAPE = (3, 10, 8)


def create(path, *, shape=SHAPE, dtype="float32", shard_stimuli=4, **changes):
    return store.create(
        path,
        shape=shape,
        dtype=dtype,
        shard_stimuli=shard_stimuli,
        attributes=dataclasses.replace(ATTRIBUTES, **changes),
    )


def write(activations, values, shards=None, dtype="float32"):
    values = values.astype(store.DTYPES[dtype])
    for i in range(len(activations.shards)) if shards is None else shards:
        rows = activations.shards[i]
        activations.write_shard(i, values[:, rows.start : rows.stop]).result()


@pytest.fixture
def values(rng):
    return rng.standard_normal(SHAPE, np.float32) * np.float32(30)


@pytest.fixture
def path(tmp_path):
    return tmp_path / store.ARRAY


# Round trips.


@pytest.mark.parametrize(
    "dtype,relative_error",
    # Rounding to nearest errs by half a unit of the last of 1 + 7 or 1 + 10 bits.
    [("float32", 0), ("bfloat16", 2**-8), ("float16", 2**-11)],
)
def test_round_trip(path, values, dtype, relative_error):
    write(create(path, dtype=dtype), values, dtype=dtype)
    opened = store.open_store(path)
    assert opened.shape == SHAPE and opened.attributes == ATTRIBUTES
    read = np.stack([opened.read_layer(layer) for layer in range(3)])
    assert read.dtype == np.float32
    assert (np.abs(read - values) <= relative_error * np.abs(values)).all()
    np.testing.assert_array_equal(read, values.astype(store.DTYPES[dtype]).astype(np.float32))
    assert (read == values).all() == (dtype == "float32")


def test_large_values_survive_bfloat16(path):
    """Outlier units of language models reach thousands; bfloat16 has float32's range."""
    values = np.full((1, 2, 3), 3e38, np.float32)
    write(create(path, shape=values.shape, dtype="bfloat16"), values, dtype="bfloat16")
    np.testing.assert_allclose(store.open_store(path).read_layer(0), values[0], rtol=2**-8)


@pytest.mark.slow
@hypothesis.given(st.integers(1, 13), st.integers(1, 16), st.randoms(use_true_random=False))
@hypothesis.settings(max_examples=25, deadline=None)
def test_shards_partition_the_stimuli(num_stimuli, shard_stimuli, random):
    values = np.arange(2 * num_stimuli * 3, dtype=np.float32).reshape(2, num_stimuli, 3)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "a"
        activations = create(path, shape=values.shape, shard_stimuli=shard_stimuli)
        assert [i for shard in activations.shards for i in shard] == list(range(num_stimuli))
        assert all(len(shard) == shard_stimuli for shard in activations.shards[:-1])
        order = list(range(len(activations.shards)))
        random.shuffle(order)
        write(activations, values, order)
        opened = store.open_store(path)
        assert opened.shards == activations.shards
        for layer in range(2):
            np.testing.assert_array_equal(opened.read_layer(layer), values[layer])


def test_writes_may_be_in_flight_together(path, values):
    activations = create(path, shard_stimuli=2)
    futures = [
        activations.write_shard(i, values[:, shard.start : shard.stop])
        for i, shard in enumerate(activations.shards)
    ]
    for future in futures:
        future.result()
    np.testing.assert_array_equal(store.open_store(path).read_layer(2), values[2])


def test_one_shard_is_one_file(path, values):
    write(create(path), values)
    files = sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())
    assert files == ["c/0/0/0", "c/0/1/0", "c/0/2/0", "zarr.json"]


# An interface to others.


def test_metadata_is_plain_zarr3(path, values):
    create(path)
    metadata = json.loads((path / "zarr.json").read_text())
    assert metadata["zarr_format"] == 3 and metadata["node_type"] == "array"
    assert metadata["shape"] == list(SHAPE) and metadata["data_type"] == "float32"
    assert metadata["dimension_names"] == ["layer", "stimulus", "unit"]
    assert metadata["attributes"] == {"jaxalign": dataclasses.asdict(ATTRIBUTES)}
    assert metadata["attributes"]["jaxalign"]["format_version"] == store.FORMAT_VERSION


@pytest.mark.parametrize("dtype", store.DTYPES)
def test_plain_tensorstore_reads_it(path, values, dtype):
    write(create(path, dtype=dtype), values, dtype=dtype)
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}
    array = ts.open(spec, open=True, read=True).result()
    assert array.domain.labels == ("layer", "stimulus", "unit")
    assert array.dtype.name == dtype
    np.testing.assert_array_equal(array.read().result(), values.astype(store.DTYPES[dtype]))


# Interruption.


def test_unwritten_shards_are_seen_and_filled_in(path, values):
    interrupted = create(path)
    write(interrupted, values, [0, 2])
    # What a process leaves that is killed while it writes.
    (path / "c/0/1").mkdir()
    (path / "c/0/1/0.__lock").write_bytes(b"half")
    resumed = create(path)
    assert [resumed.has_whole_shard(i) for i in range(3)] == [True, False, True]
    write(resumed, values, [1])
    assert all(resumed.has_whole_shard(i) for i in range(3))
    for layer in range(3):
        np.testing.assert_array_equal(store.open_store(path).read_layer(layer), values[layer])


def test_creating_again_changes_no_file(path, values):
    write(create(path), values)
    before = {f: f.read_bytes() for f in path.rglob("*") if f.is_file()}
    again = create(path, versions={"numpy": "3.0"})
    assert again.attributes.versions == {"numpy": "2.0"}  # those of the beginning
    assert {f: f.read_bytes() for f in path.rglob("*") if f.is_file()} == before


def test_finished_store_has_all_shards(path, values):
    activations = create(path)
    assert not any(activations.has_whole_shard(i) for i in range(3))
    write(activations, values)
    assert all(activations.has_whole_shard(i) for i in range(3))


@pytest.mark.parametrize("dtype", store.DTYPES)
def test_unwritten_part_is_an_error(path, values, dtype):
    activations = create(path, dtype=dtype)
    write(activations, values, [0, 2], dtype=dtype)
    with pytest.raises(InputError, match="layer 1 must be finite, but 4 of 10 stimuli"):
        store.open_store(path).read_layer(1)


# Refusals.


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint": "ffff"},
        {"model": "other"},
        {"stimuli_hash": "0000"},
        {"untrained_seed": 3},
        {"reading": {"context": "window:3", "pooling": "last"}},
        {"final_norm_applied": False},
    ],
    ids=lambda change: next(iter(change)),
)
def test_activations_of_something_else_are_refused(path, change):
    ((field, wanted),) = change.items()
    found = getattr(ATTRIBUTES, field)
    create(path)
    message = re.escape(f"must hold activations with {field} {wanted!r}, found {found!r}")
    with pytest.raises(InputError, match=message):
        create(path, **change)
    with pytest.raises(InputError, match=message):
        store.open_store(path, expected=dataclasses.replace(ATTRIBUTES, **change))


def test_another_shape_is_refused(path):
    create(path)
    with pytest.raises(InputError, match=r"shape must be \(3, 11, 8\), found \(3, 10, 8\)"):
        create(path, shape=(3, 11, 8))


def test_another_dtype_is_refused(path):
    """Float32 was asked for; to go on in bfloat16 would round in silence."""
    create(path, dtype="bfloat16")
    with pytest.raises(InputError, match="float32.*found.*bfloat16"):
        create(path, dtype="float32")


def test_no_store(tmp_path):
    with pytest.raises(InputError, match="zarr.json must describe an activation store"):
        store.open_store(tmp_path / "nothing")


def edit(path, change):
    metadata = json.loads((path / "zarr.json").read_text())
    change(metadata)
    (path / "zarr.json").write_text(json.dumps(metadata))


def test_another_format_version_is_refused(path):
    create(path)
    edit(path, lambda m: m["attributes"]["jaxalign"].update(format_version=99))
    with pytest.raises(InputError, match=f"format must be {store.FORMAT_VERSION}, found 99"):
        store.open_store(path)


def test_later_format_with_another_attribute_is_refused_by_its_version(path):
    create(path)
    edit(path, lambda m: m["attributes"]["jaxalign"].update(format_version=99, novel=1))
    with pytest.raises(InputError, match=f"format must be {store.FORMAT_VERSION}, found 99"):
        store.open_store(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["attributes"].clear(),
        lambda m: m["attributes"]["jaxalign"].pop("model"),
        lambda m: m.pop("attributes"),
        lambda m: m.update(shape="many"),
        lambda m: m.update(zarr_format=2),
    ],
    ids=["no attributes", "no model", "no attributes at all", "no shape", "zarr 2"],
)
def test_array_that_is_no_store_is_refused(path, change):
    create(path)
    edit(path, change)
    with pytest.raises(InputError, match="zarr.json"):
        store.open_store(path)


def test_damaged_values_are_found_in_their_layer(path, values):
    write(create(path), values)
    file = path / "c/0/1/0"
    data = bytearray(file.read_bytes())
    at = data.index(values[1, 4:8].tobytes())
    data[at + 5] ^= 0x10
    file.write_bytes(data)
    damaged = store.open_store(path)
    np.testing.assert_array_equal(damaged.read_layer(0), values[0])
    np.testing.assert_array_equal(damaged.read_layer(2), values[2])
    with pytest.raises(InputError, match="layer 1 cannot be read .*[Dd]igest") as info:
        damaged.read_layer(1)
    assert str(path) in str(info.value) and "\n" not in str(info.value)


@pytest.mark.parametrize("keep", [0, 20, -1])
def test_truncated_shard_is_found(path, values, keep):
    write(create(path), values)
    file = path / "c/0/0/0"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"layer 0 cannot be read .*delete .* and run again"):
        store.open_store(path).read_layer(0)


def test_overflow_of_the_stores_dtype_is_found(path, values):
    values[1, 3, 2] = 1e6  # float16 ends at 65504
    activations = create(path, dtype="float16")
    with np.errstate(over="ignore"):
        write(activations, values, dtype="float16")
    np.testing.assert_allclose(activations.read_layer(0), values[0], rtol=2**-11)
    with pytest.raises(InputError, match="layer 1 must be finite, but 1 of 10 stimuli are not"):
        activations.read_layer(1)


@pytest.mark.parametrize(
    "part",
    [
        lambda values: values[:, :3],
        lambda values: values[:, :1],
        lambda values: values[:1, :4],
        lambda values: values[0, :4],
    ],
    ids=["3 of 4 stimuli", "1 of 4 stimuli", "one layer", "no layers"],
)
def test_part_of_a_shard_is_refused(path, values, part):
    """To broadcast it would fill the shard with copies."""
    activations = create(path)
    with pytest.raises(ValueError):
        activations.write_shard(0, part(values)).result()
    assert not activations.has_whole_shard(0)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_values_are_never_rounded_in_silence(path, values, dtype):
    activations = create(path, dtype=dtype)
    with pytest.raises(TypeError, match=f"Cannot cast.*{dtype}"):
        activations.write_shard(0, values[:, :4])
    assert not activations.has_whole_shard(0)


@pytest.mark.parametrize("layer", [-1, 3, 99])
def test_layer_out_of_range_is_not_blamed_on_the_file(path, values, layer):
    write(create(path), values)
    with pytest.raises((IndexError, ValueError)) as info:
        store.open_store(path).read_layer(layer)
    assert "delete" not in str(info.value)


# As part of an artefact.


@pytest.fixture
def artefact(tmp_path):
    made = run_dir.Artefact(
        workdir=tmp_path, stage="extract", name="tiny", settings={"num_stimuli": 4}
    )
    made.start()
    return made


def test_artefact_opens_its_own_store_only(artefact, values):
    created = create(artefact.path / store.ARRAY, fingerprint=artefact.fingerprint)
    write(created, values)
    np.testing.assert_array_equal(store.open_artefact(artefact).read_layer(1), values[1])
    edit(artefact.path / store.ARRAY, lambda m: m["attributes"]["jaxalign"].update(fingerprint="x"))
    with pytest.raises(
        InputError, match=rf"must hold tiny \({artefact.fingerprint}\), found tiny \(x\)"
    ):
        store.open_artefact(artefact)


def test_stimulus_ids_come_back_in_order(artefact):
    ids = ["b", "a", "ünïcode", "a/1"]
    run_dir.write_json(artefact.path / store.STIMULUS_IDS, ids)
    assert store.stimulus_ids(artefact) == ids


@pytest.mark.parametrize("content", [None, "[", '["a"]', "4"])
def test_broken_list_of_stimuli_is_refused(artefact, content):
    if content is not None:
        (artefact.path / store.STIMULUS_IDS).write_text(content)
    with pytest.raises(InputError, match="must list the stimuli: .*; delete .* and run again"):
        store.stimulus_ids(artefact)


def test_failed_write_is_one_line(artefact):
    promise, future = ts.Promise.new()
    promise.set_exception(ValueError("RESOURCE_EXHAUSTED: no space left\nmore"))
    with pytest.raises(InputError, match="cannot be written: .*no space left\\.$"):
        store.finish_write(future, artefact)


def test_dtypes_are_those_of_zarr():
    assert store.DTYPES["bfloat16"] is ml_dtypes.bfloat16
    for name, dtype in store.DTYPES.items():
        assert ts.dtype(name).numpy_dtype == dtype


def test_a_vector_lies_beside_the_activations(path, tmp_path):
    activations = create(path)
    bits = store.open_vector(tmp_path / "bits.zarr", activations, create=True)
    assert np.isnan(bits.read().result()).all()
    rows = activations.shards[1]
    bits[rows.start : rows.stop].write(np.arange(len(rows), dtype=np.float32)).result()
    found = store.open_vector(tmp_path / "bits.zarr", activations).read().result()
    np.testing.assert_array_equal(found[rows.start : rows.stop], np.arange(len(rows)))
    assert np.isnan(np.delete(found, list(rows))).all()


def test_a_vector_of_other_stimuli_is_refused(path, tmp_path):
    activations = create(path)
    with pytest.raises(InputError, match="bits.zarr must hold a number for each of 10 stimuli"):
        store.open_vector(tmp_path / "bits.zarr", activations)
    store.open_vector(tmp_path / "bits.zarr", activations, create=True)
    other = create(tmp_path / "other.zarr", shape=(3, 11, 8))
    with pytest.raises(InputError, match="bits.zarr must hold a number for each of 11 stimuli"):
        store.open_vector(tmp_path / "bits.zarr", other)
