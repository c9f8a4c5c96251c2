"""The command line of lm-evaluation-harness, with `--model jaxalign` added."""

import importlib.util

from jaxalign import allocators, command_line, processes
from jaxalign.errors import InputError

MODEL = "jaxalign"
TARGET = "jaxalign.harness.model:JaxalignLM"


def main() -> None:
    """Run the harness; see `command_line.ends_in_one_line` for how it ends."""
    allocators.set_up()
    with command_line.ends_in_one_line(smaller="a smaller --batch_size or --model_args max_length"):
        _run()


def _run() -> None:
    processes.check_alone("the harness")
    if importlib.util.find_spec("lm_eval") is None:
        raise InputError(
            "this needs lm-evaluation-harness, which is not installed: run "
            "pip install 'jaxalign[harness]'."
        )
    from lm_eval import __main__ as harness
    from lm_eval.api.registry import model_registry

    model_registry.register(MODEL, target=TARGET)
    harness.cli_evaluate()


if __name__ == "__main__":
    main()
