"""The command line of lm-evaluation-harness, with `--model jaxalign` added."""

import importlib.util
import sys

from jaxalign.errors import InputError

MODEL = "jaxalign"
TARGET = "jaxalign.harness.model:JaxalignLM"


def main() -> None:
    """Run the harness; report what the user can put right in one line, with exit code 2."""
    if importlib.util.find_spec("lm_eval") is None:
        sys.stderr.write(
            "error: this needs lm-evaluation-harness, which is not installed: run "
            "pip install 'jaxalign[harness]'.\n"
        )
        sys.exit(2)
    from lm_eval import __main__ as harness
    from lm_eval.api.registry import model_registry

    model_registry.register(MODEL, target=TARGET)
    try:
        harness.cli_evaluate()
    except InputError as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
