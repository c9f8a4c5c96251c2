"""Brain-Score's assemblies, written by the test in their format, and spoiled."""

import logging

import numpy as np
import published_files as published
import pytest
import xarray as xr
from refusals import refused

from jaxalign.data.sets import brainscore

NAMES = {
    "Pereira2018.243sentences": published.pereira,
    "Pereira2018.384sentences": published.pereira,
    "Blank2014": published.blank,
    "Blank2014.rows": published.blank,
    "Fedorenko2016": published.fedorenko,
    "Tuckute2024": published.tuckute,
}
P243 = {"assembly": "Pereira2018.243sentences", "verify": False}
P384 = {"assembly": "Pereira2018.384sentences", "verify": False}


def adapter(root, **options):
    return brainscore.BrainScore(root=root, **options)


def test_every_assembly_is_written_by_the_tests():
    assert set(NAMES) == set(brainscore.ASSEMBLIES)


@pytest.mark.parametrize(
    "options,rows,columns,subjects",
    [(P243, slice(0, 4), slice(0, 5), {"s1", "s2"}), (P384, slice(4, 9), [0, 1, 5], {"s1", "s3"})],
)
def test_pereira_has_those_who_took_part(tmp_path, rng, options, rows, columns, subjects):
    path, data = published.pereira(tmp_path, rng)
    found = adapter(tmp_path, **options).responses()
    np.testing.assert_array_equal(found.values, data[rows][:, columns])
    assert set(found.subject) == subjects
    assert set(found.roi) == {"language"}
    # Voxels of two subjects are not the same place: no target may be shared.
    assert len(set(found.target)) == found.values.shape[1]
    assert found.target[0] == "s1.7"
    stimuli = adapter(tmp_path, **options).stimuli()
    assert list(stimuli.stimulus_id) == list(found.stimulus_id)
    assert adapter(tmp_path, **options).files() == [path]


def test_pereira_labels(tmp_path, rng):
    published.pereira(tmp_path, rng)
    stimuli = adapter(tmp_path, **P384).stimuli()
    assert stimuli.stimulus_id[:2] == ["384sentences.0", "384sentences.1"]
    assert stimuli.text[0] == "Sentence 0 of 384sentences."
    names = ["Apple", "Apple", "Pear", "Pear", "Bed"]
    assert stimuli.passage == [f"384sentences.{x}" for x in names]
    groups = adapter(tmp_path, **P384).groups()
    assert groups["384sentences.3"] == "384sentences.fruit"
    assert groups["384sentences.4"] == "384sentences.home"
    assert stimuli.unit == "sentence" and not stimuli.is_timed


@pytest.mark.slow
def test_presentations_in_another_order_are_put_back(tmp_path, rng):
    path, data = published.pereira(tmp_path, rng)
    order = rng.permutation(9)
    with xr.open_dataset(path, engine="h5netcdf") as file:
        shuffled = file.load().isel(presentation=order)
    path.unlink()
    shuffled.to_netcdf(path, engine="h5netcdf")
    found = adapter(tmp_path, **P243).responses()
    np.testing.assert_array_equal(found.values, data[:4, :5])
    assert adapter(tmp_path, **P243).stimuli().text[3] == "Sentence 3 of 243sentences."


def test_data_may_be_transposed(tmp_path, rng):
    path, data = published.pereira(tmp_path, rng)
    with xr.open_dataset(path, engine="h5netcdf") as file:
        turned = file.load().transpose("neuroid", "presentation")
    path.unlink()
    turned.to_netcdf(path, engine="h5netcdf")
    np.testing.assert_array_equal(adapter(tmp_path, **P243).responses().values, data[:4, :5])


def test_blank_is_read_in_the_order_of_its_stories(tmp_path, rng):
    _, data, ids, _ = published.blank(tmp_path, rng)
    assert ids[:5] == ["Aqua.0.0", "Aqua.0.1", "Boar.0.0", "Boar.1.0", "Boar.10.0"]
    options = {"assembly": "Blank2014", "verify": False}
    stimuli, found = (
        adapter(tmp_path, **options).stimuli(),
        adapter(tmp_path, **options).responses(),
    )
    order = ["Aqua.0.0", "Aqua.0.1", *(f"Boar.{i}.0" for i in range(11))]
    assert stimuli.stimulus_id == found.stimulus_id == order
    np.testing.assert_array_equal(found.values, data[[ids.index(x) for x in order]])
    assert stimuli.text == [f"text of {x.replace('.', ' ')} " for x in order]
    assert stimuli.passage == ["Aqua"] * 2 + ["Boar"] * 11
    # Regions are the same place in all subjects.
    assert found.roi == ["01_LH_PostTemp", "02_LH_AntTemp"] * 2
    assert set(found.target) == {"mean"}
    assert found.subject == ["061", "061", "085", "085"]


def test_labels_beside_another_id_are_joined_by_id(tmp_path, rng, caplog):
    path, data, ids, text = published.blank(tmp_path, rng, scrambled=True)
    with caplog.at_level(logging.WARNING, logger="absl"):
        stimuli = adapter(tmp_path, assembly="Blank2014", verify=False).stimuli()
    assert stimuli.text == [f"text of {x.replace('.', ' ')} " for x in stimuli.stimulus_id]
    moved = sum(t != f"text of {x.replace('.', ' ')} " for t, x in zip(text, ids, strict=True))
    assert moved > 0
    assert f"{path}: {moved} of 13 presentations lie beside the text of another" in caplog.text
    found = adapter(tmp_path, assembly="Blank2014", verify=False).responses()
    np.testing.assert_array_equal(found.values, data[[ids.index(x) for x in found.stimulus_id]])


def test_blank_as_its_rows_lie(tmp_path, rng):
    _, data, ids, text = published.blank(tmp_path, rng, scrambled=True)
    options = {"assembly": "Blank2014.rows", "verify": False}
    stimuli = adapter(tmp_path, **options).stimuli()
    assert stimuli.stimulus_id == ids and stimuli.text == text
    np.testing.assert_array_equal(adapter(tmp_path, **options).responses().values, data)


def test_fedorenko_has_words_and_electrodes(tmp_path, rng):
    _, data = published.fedorenko(tmp_path, rng)
    options = {"assembly": "Fedorenko2016", "verify": False}
    stimuli, found = (
        adapter(tmp_path, **options).stimuli(),
        adapter(tmp_path, **options).responses(),
    )
    assert stimuli.unit == "word"
    assert stimuli.stimulus_id[7:9] == ["7", "8"]
    assert stimuli.passage[7:9] == ["0", "1"]
    assert adapter(tmp_path, **options).groups()["8"] == "1"
    assert found.subject == ["1", "1", "2"]
    assert found.target == ["0", "1", "2"]
    np.testing.assert_array_equal(found.values, data)


def test_tuckute_has_one_column(tmp_path, rng):
    _, data = published.tuckute(tmp_path, rng)
    found = adapter(tmp_path, assembly="Tuckute2024", verify=False).responses()
    assert found.subject == ["848-853-865-875-876"] and found.roi == ["lang_LH_netw"]
    np.testing.assert_array_equal(found.values, data)
    assert found.stimulus_id == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize("name", NAMES)
def test_another_file_than_the_published_one_is_refused(tmp_path, rng, name):
    path = NAMES[name](tmp_path, rng)[0]
    with refused(path, "presentations must be", f"as in the published {name}", "another one"):
        adapter(tmp_path, assembly=name, verify=True).responses()


def test_files_of_the_published_size_are_accepted(tmp_path, rng, caplog):
    published.tuckute(tmp_path, rng, num_sentences=1000)
    path, _ = published.fedorenko(tmp_path, rng, num_sentences=52, electrodes=(47, 8, 9, 15, 18))
    with caplog.at_level(logging.INFO, logger="absl"):
        assert adapter(tmp_path, assembly="Tuckute2024", verify=True).responses().tr_s == 0
        found = adapter(tmp_path, assembly="Fedorenko2016", verify=True).responses()
    assert found.values.shape == (416, 97)
    assert f"{path} is the published Fedorenko2016: presentations 416, unique" in caplog.text


def test_a_sum_that_differs_is_refused(tmp_path, rng):
    path, _ = published.tuckute(tmp_path, rng, num_sentences=1000, largest=1.2)
    with refused(path, "largest value must be 1.28 to 1.29", "found 1.2"):
        adapter(tmp_path, assembly="Tuckute2024", verify=True).responses()


def test_an_unknown_assembly_is_refused(tmp_path):
    with refused("assembly must be one of Pereira2018.243sentences", "'Pereira2019'"):
        adapter(tmp_path, assembly="Pereira2019", verify=False).files()


def test_a_missing_file_is_named(tmp_path):
    for read in ("files", "stimuli", "responses", "groups"):
        with refused("needs", "assy_Pereira2018_language.nc: it is missing"):
            getattr(adapter(tmp_path, **P243), read)()


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path, rng, kept):
    path, _ = published.pereira(tmp_path, rng)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    for read in ("stimuli", "responses"):
        with refused(path, "must be a whole netCDF4 file"):
            getattr(adapter(tmp_path, **P243), read)()


def test_a_damaged_block_is_refused(tmp_path, rng):
    path, _ = published.pereira(tmp_path, rng, values=rng.normal(size=(9, 6)))
    content = bytearray(path.read_bytes())
    # A compressed block begins with zlib's header for level 1.
    start = content.index(b"\x78\x01")
    content[start + 2 : start + 12] = bytes(10)
    path.write_bytes(bytes(content))
    with refused(path, "must be a whole netCDF4 file"):
        adapter(tmp_path, **P243).responses()


@pytest.mark.parametrize(
    "changes,parts",
    [
        ({"drop": ["subject"]}, ["must hold the label 'subject' of each neuroid"]),
        ({"drop": ["neuroid_id"]}, ["must hold the label 'neuroid_id' of each neuroid"]),
        ({"drop": ["atlas"]}, ["must hold the label 'atlas' of each neuroid"]),
        ({"drop": ["stimulus"]}, ["must hold the label 'stimulus' of each presentation"]),
        ({"drop": ["stimulus_id"]}, ["must hold the label 'stimulus_id' of each presentation"]),
        ({"drop": ["passage_label"]}, ["must hold the label 'passage_label'"]),
        (
            {"experiment": ["180concepts"] * 9},
            ["experiment must be '243sentences' for some", "['180concepts']"],
        ),
        (
            {"stimulus_num": [0, 1, 2, 9, 0, 1, 2, 3, 4]},
            ["stimulus_id must be experiment.stimulus_num", "'243sentences.3'"],
        ),
        ({"stimulus_num": [0.5] * 9}, ["stimulus_num must be text or a whole number", "0 is 0.5"]),
        ({"stimulus_id": ["243sentences.0"] * 9}, ["stimulus_id must be unique"]),
        ({"neuroid_id": ["s1.7"] * 6}, ["responses: subject 's1'", "found twice"]),
        ({"stimulus": [""] * 9}, ["stimuli: text must not be empty"]),
    ],
    ids=lambda x: str(x)[:40],
)
def test_labels_that_are_missing_or_wrong_are_named(tmp_path, rng, changes, parts):
    path, _ = published.pereira(tmp_path, rng, **changes)
    with refused(path, *parts):
        adapter(tmp_path, **P243).stimuli()
        adapter(tmp_path, **P243).responses()


def test_a_whole_number_beside_missing_ones_is_read(tmp_path, rng):
    """Pandas makes floats of whole numbers once one is missing."""
    published.pereira(tmp_path, rng, stimulus_num=[0.0, 1.0, 2.0, 3.0, 0.0, 1.0, 2.0, 3.0, 4.0])
    assert len(adapter(tmp_path, **P243).stimuli()) == 4


def test_a_block_of_nan_is_named(tmp_path, rng):
    path, data = published.pereira(tmp_path, rng)
    data[1:3, 3] = np.nan
    path.unlink()
    published.pereira(tmp_path, rng, values=data)
    with refused(path, "neuroid 's2.8' of subject 's2' lacks 2 of 4 values (1 such"):
        adapter(tmp_path, **P243).responses()


def test_copies_of_a_subject_are_refused(tmp_path, rng):
    data = rng.normal(size=(9, 6))
    data[:, 2:4] = data[:, :2]
    data[:, 4] = np.nan
    subject = ["s1", "s1", "s2", "s2", "s4", "s3"]
    path, _ = published.pereira(tmp_path, rng, values=data, subject=subject)
    with refused(path, "two subjects must differ: those of 's1' and 's2' are identical"):
        adapter(tmp_path, **P243).responses()


@pytest.mark.slow
def test_data_of_another_shape_or_type_are_refused(tmp_path, rng):
    path, data = published.pereira(tmp_path, rng)
    path.unlink()
    dims = ("presentation", "neuroid", "time_bin")
    published.pereira(tmp_path, rng, values=data[:, :, np.newaxis], dims=dims)
    with refused(path, "data must have the dimensions ('presentation', 'neuroid')", "time_bin"):
        adapter(tmp_path, **P243).responses()
    path.unlink()
    published.pereira(tmp_path, rng, values=data.astype(str).astype(object))
    with refused(path, "data must hold numbers, found <U20 of shape (9, 6)"):
        adapter(tmp_path, **P243).responses()
    with xr.open_dataset(path, engine="h5netcdf") as file:
        renamed = file.load().rename(data="values")
    path.unlink()
    renamed.to_netcdf(path, engine="h5netcdf")
    with refused(path, "must hold the variable 'data'"):
        adapter(tmp_path, **P243).responses()
