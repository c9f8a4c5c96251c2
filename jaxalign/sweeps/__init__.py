"""Sweeps: many runs of one configuration file, as jobs that an engine starts."""
