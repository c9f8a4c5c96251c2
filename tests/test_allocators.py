import os
import platform

import pytest

from jaxalign import allocators


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is of glibc")
def test_glibc_takes_the_number_of_heaps():
    assert allocators.one_heap_for_each_core()


def test_other_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(allocators.ctypes, "CDLL", lambda name: object())
    assert not allocators.one_heap_for_each_core()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"XLA_CLIENT_MEM_FRACTION": "0.95"}),
        ({"XLA_CLIENT_MEM_FRACTION": ".5"}, {"XLA_CLIENT_MEM_FRACTION": ".5"}),
        ({"XLA_PYTHON_CLIENT_MEM_FRACTION": ".5"}, {"XLA_PYTHON_CLIENT_MEM_FRACTION": ".5"}),
    ],
)
def test_a_gpu_is_taken_as_far_as_plans_reckon(monkeypatch, given, expected):
    names = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")
    for name in names:  # set first, so that they are restored even where they were not there
        monkeypatch.setenv(name, given.get(name, ""))
        if name not in given:
            monkeypatch.delenv(name)
    allocators.set_up()
    assert {name: os.environ[name] for name in names if name in os.environ} == expected
