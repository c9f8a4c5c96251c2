import platform

import pytest

from jaxalign import heaps


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is of glibc")
def test_glibc_takes_the_number_of_heaps():
    assert heaps.one_for_each_core()


def test_other_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(heaps.ctypes, "CDLL", lambda name: object())
    assert not heaps.one_for_each_core()
