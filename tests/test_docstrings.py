"""Every name of the interface says what it does, with an example that does what it says."""

import doctest
import inspect

import pytest
import small

import jaxalign
from jaxalign.api import pages

NAMES = {name: getattr(jaxalign, name) for name in jaxalign._INTERFACE}
FUNCTIONS = {name: x for name, x in NAMES.items() if inspect.isfunction(x)}
FUNCTIONS["report"] = pages.report


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder that the examples are called in, shared: what one has scored others find."""
    root = tmp_path_factory.mktemp("examples")
    small.write(root / "path/to/data")
    (root / "path/to/model").symlink_to(small.BERT)
    return root


def example(name):
    """Return the example of a function; a section of its docstring."""
    function = FUNCTIONS[name]
    text = inspect.getdoc(function)
    assert text.count("\nExample:\n") == 1, name
    return doctest.DocTestParser().get_doctest(text, {}, name, inspect.getsourcefile(function), 0)


def test_all_functions_are_there():
    assert {"score", "score_arrays", "load_scores", "list_models"} <= FUNCTIONS.keys()


RUNS = ("score", "load_scores", "report")  # examples that score a model


@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=[pytest.mark.slow] if x in RUNS else []) for x in FUNCTIONS]
)
def test_example_does_what_it_says(name, folder, monkeypatch):
    """In the folder of a user who has a model, data and no data root."""
    monkeypatch.chdir(folder)
    monkeypatch.delenv("JAXALIGN_DATA", raising=False)
    test = example(name)
    assert len(test.examples) >= 2
    said = []
    result = doctest.DocTestRunner().run(test, out=said.append)
    assert result.failed == 0, "".join(said)


def test_a_wrong_example_fails():
    """The checker itself: it must be able to fail."""
    wrong = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    assert doctest.DocTestRunner().run(wrong, out=lambda _: None).failed == 1
