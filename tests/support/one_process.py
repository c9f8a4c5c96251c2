"""Runs all jobs of a sweep one after another in this process: `one_process.py CONFIG STORE`."""

import pathlib
import sys

from jaxalign import runner
from jaxalign.sweeps import entries, planning, together

if __name__ == "__main__":
    sweep = entries.read(sys.argv[1])
    where = planning.Where(store=pathlib.Path(sys.argv[2]), name="one")
    record = planning.plan(sweep, where)
    record.write()
    for entry in sweep.entries:
        places = runner.Places(store=where.store)
        runner.run(runner.plan(entry.settings, workdir=where.folder / entry.name, places=places))
    folder = where.folder / planning.COLLECT
    runner.run(runner.plan(together.get_config(str(where.folder)), workdir=folder))
