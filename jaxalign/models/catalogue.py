"""What is known of the models of the table without their weights: family, sizes, repository."""

from jaxalign.models import readers, zoo
from jaxalign.models.table import MODELS


def properties() -> dict[str, dict[str, object]]:
    """Return family, num_layers (of both stacks of a T5), width and num_parameters by model.

    A model whose hyperparameters come with its weights has none of them, unless they are known.
    What was tuned, and from what, the table does not know.
    """
    found = {}
    for name, row in MODELS.items():
        known: dict[str, object] = {}
        if row.config:
            design, config = zoo.describe(name)
            known |= {"family": readers.reader(design).title, "num_layers": config.num_layers}
            known["width"] = config.width
        if row.num_parameters:
            known["num_parameters"] = row.num_parameters
        if known:
            found[name] = known
    return found
