"""Starts the jobs of a sweep: many runs of one configuration file. docs/scale.md has the commands.

    launch/local.sh launch/sweep.py --config=configs/sweeps/demo.py --to=local --store=runs/sweep

Any Python with the package runs it too. --help lists the flags.
"""

from absl import flags

from jaxalign.sweeps import command

flags.adopt_module_key_flags(command)

if __name__ == "__main__":
    command.cli()
