"""Published sizes in the place of data that are not here, for plans that are only priced."""

import collections

import pytest
from refusals import refused

from jaxalign.data import datasets, stand_ins
from jaxalign.data.sets import brainscore, brainscore_behavior, wehbe2014


def of(name):
    return datasets.for_price(name, None)


def test_sizes_are_what_the_adapters_expect_of_the_published_files():
    for name, assembly in (
        ("pereira2018-243", "Pereira2018.243sentences"),
        ("pereira2018-384", "Pereira2018.384sentences"),
    ):
        size, known = stand_ins.SIZES[name], brainscore.ASSEMBLIES[assembly].expected
        found = {"stimuli": size.parts, "subjects": size.subjects, "targets": size.targets}
        assert {x: (n, n) for x, n in found.items()} == {x: tuple(known[x]) for x in found}
    known, blank = brainscore.ASSEMBLIES["Blank2014"].expected, stand_ins.SIZES["blank2014"]
    assert blank.parts == known["presentations"][0] and blank.targets == known["unique neuroids"][0]
    assert len(blank.words) == known["passages"][0] and blank.num_targets == 72
    known, futrell = brainscore_behavior.EXPECTED, stand_ins.SIZES["futrell2018"]
    assert futrell.parts == known["words"][0] and len(futrell.words) == known["stories"][0]
    assert futrell.subjects == known["participants"][0]
    # 1,351 TRs, of which 35 of each run were cut off.
    wehbe = stand_ins.SIZES["wehbe2014"]
    assert sum(wehbe.num_trs) == 1211 and wehbe.parts == wehbe2014.NUM_WORDS


def test_words_of_stories_are_those_of_natural_stories(data_root):
    stimuli = datasets.find("naturalstories", data_root).stimuli
    count = collections.Counter(stimuli.passage)
    stand_in = collections.Counter(of("futrell2018").stimuli.passage)
    assert list(stand_in.values()) == [count[str(i + 1)] for i in range(10)]
    letters = lambda text: sum(map(len, text)) / len(text)
    assert letters(of("futrell2018").stimuli.text) == pytest.approx(letters(stimuli.text), rel=0.02)


@pytest.mark.parametrize("name", stand_ins.SIZES)
def test_stimuli_and_samples_have_the_size(name):
    dataset, size = of(name), stand_ins.SIZES[name]
    stimuli = dataset.stimuli
    assert len(stimuli) == size.parts
    assert sum(len(x.split()) for x in stimuli.text) == sum(size.words)
    assert len(set(stimuli.passage)) == len(size.words)
    assert len(set(dataset.groups.values())) == (size.groups or len(size.words))
    if not size.targets:
        assert len(dataset.behavior.participant) == size.subjects
        return
    samples = dataset.stand_in.samples()
    assert len(samples.run) == (sum(size.num_trs) or size.parts)
    dataset.check_samples(samples)
    # Nothing that was drawn looks like something that was read before.
    assert dataset.items(samples) is None
    with refused(f"data set {name} is not here", "only the stage encode can be priced"):
        dataset.responses  # noqa: B018


def test_what_is_here_is_read(tmp_path):
    assert stand_ins.is_absent("wehbe2014", None) and stand_ins.is_absent("wehbe2014", tmp_path)
    assert not stand_ins.is_absent("alice", None) and not stand_ins.is_absent("demo", None)
    (tmp_path / "wehbe2014").mkdir()
    with refused("data set wehbe2014 needs", "stimuli_words.npy: it is missing"):
        datasets.for_price("wehbe2014", tmp_path)
    (tmp_path / "brainscore").mkdir()
    path = tmp_path / "brainscore" / brainscore_behavior.FILE
    path.symlink_to("annex/nowhere")
    with refused("it is a link to a file that was not fetched"):
        datasets.for_price("futrell2018", tmp_path)
    assert datasets.for_price("blank2014", tmp_path).stand_in
    with refused("dataset alice lies in the data folder"):
        datasets.for_price("alice", None)


def test_what_is_assumed_is_said():
    said = of("wehbe2014").stand_in.described
    assert said.startswith("data set wehbe2014 is not here: 5,176 words, 8 people, 223,240 targets")
    assert "1,211 TRs" in said and "assumed are 27,905 voxels for each person" in said
