import dataclasses

import pytest
from refusals import refused

from jaxalign.literature import protocols

NAMES = (
    "jaxalign",
    "brainscore-linear-2023",
    "brainscore-linear-2026",
    "brainscore-ridge",
    "brainscore-ridge-8folds",
    "wehbe2014",
    "himalaya",
    "huth",
    "huth-single-alpha",
    "oota2025",
    "futrell2018-pearsonr",
    "wikitext2-nwp",
    "aw2024-average",
)


def test_names():
    assert tuple(protocols.PROTOCOLS) == NAMES
    for name, protocol in protocols.PROTOCOLS.items():
        assert protocols.find(name) is protocol
        assert protocol.name == name and protocol.source


def test_protocols_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        protocols.find("jaxalign").metric = "r2"
    assert len(set(protocols.PROTOCOLS.values())) == len(NAMES)


def test_only_random_samples_are_shuffled():
    shuffled = [name for name, x in protocols.PROTOCOLS.items() if x.is_shuffled]
    assert shuffled == ["brainscore-linear-2023", "brainscore-linear-2026"]


def test_parts_of_an_average_are_protocols():
    for _, part in protocols.find("aw2024-average").parts:
        assert protocols.find(part).kind == "encoding"


def test_unknown_name():
    with refused("protocol must be one of jaxalign, brainscore-linear-2023,", "got 'best'"):
        protocols.find("best")


@pytest.mark.parametrize(
    "name,parts",
    [
        (
            "jaxalign",
            ["6 folds of contiguous blocks", "a gap of 6", "17 penalties from 0.1 to 1e+07"],
        ),
        ("brainscore-linear-2026", ["10 random splits", "90%", "seed 1", "least squares"]),
        (
            "brainscore-ridge",
            ["whole groups", "seed 1234", "one for all targets", "single training"],
        ),
        ("wehbe2014", ["4 contiguous folds", "10 components", "relative error", "without"]),
        ("huth", ["squared penalties", "50 random draws of 125 chunks of 40", "by correlation"]),
    ],
)
def test_descriptions(name, parts):
    text = protocols.describe(protocols.find(name))
    assert name in text and text.endswith(".")
    for part in parts:
        assert part in text


@pytest.mark.parametrize("name", [x for x in NAMES if protocols.PROTOCOLS[x].kind == "encoding"])
def test_every_encoding_protocol_is_described(name):
    assert "{" not in protocols.describe(protocols.find(name))
