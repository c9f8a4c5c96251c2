"""What every adapter has from its base: refusals, options, files that must be there."""

import dataclasses

import pytest
from refusals import refused

from jaxalign.data.adapter import Adapter
from jaxalign.data.schema import Stimuli


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fable(Adapter):
    name: str = "fable"
    moral: bool = True

    def files(self):
        return self.need([self.root / "fable.txt"])

    def stimuli(self):
        return Stimuli(
            stimulus_id=["a", "b"],
            text=["A fox came.", "It left."],
            passage=["fox", "fox"],
            run=["r", "r"],
            unit="sentence",
        )


def test_what_it_lacks_is_named(tmp_path):
    fable = Fable(root=tmp_path)
    with refused("data set fable has no responses: it has stimuli."):
        fable.responses()
    with refused("data set fable has no repeats: it has stimuli."):
        fable.repeats("s1")
    with refused("data set fable has no activations of 'gpt2'"):
        fable.activations("gpt2")
    assert fable.has("stimuli") and not fable.has("repeats") and fable.networks == ()


def test_passages_and_no_facts_are_what_most_have(tmp_path):
    fable = Fable(root=tmp_path)
    assert fable.groups() == {"a": "fox", "b": "fox"}
    assert list(fable.word_facts().stimulus_id) == ["a", "b"]
    assert not len(fable.word_facts().log_frequency)


def test_options_are_fields_and_others_are_an_error(tmp_path):
    assert Fable(root=tmp_path, moral=False).options == {"moral": False}
    with pytest.raises(TypeError, match="unexpected keyword argument 'nan'"):
        Fable(root=tmp_path, nan="leave_out")
    with refused("data set fable: animals must be among fox, crow, found 'hen'"):
        Fable(root=tmp_path).check_option("animals", ("fox", "hen"), ("fox", "crow"))
    with refused("data set fable: animals must be among fox, crow, found 'none'"):
        Fable(root=tmp_path).check_option("animals", (), ("fox", "crow"))


def test_a_missing_file_and_one_that_was_not_fetched_are_told_apart(tmp_path):
    fable, path = Fable(root=tmp_path), tmp_path / "fable.txt"
    with refused("data set fable needs", path, "missing"):
        fable.files()
    path.symlink_to(tmp_path / "annex/key")
    with refused("data set fable needs", path, "not fetched", "datalad get"):
        fable.files()
    with refused("x.pkl is a pickle", "never opened"):
        fable.need([tmp_path / "x.pkl"])
