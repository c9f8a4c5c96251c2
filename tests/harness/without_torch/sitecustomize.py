"""Hides torch from a process whose PYTHONPATH begins here, as where it is not installed."""

import importlib.machinery

_find = importlib.machinery.PathFinder.find_spec


def _find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] == "torch" else _find(name, path, target)


importlib.machinery.PathFinder.find_spec = staticmethod(_find_spec)
