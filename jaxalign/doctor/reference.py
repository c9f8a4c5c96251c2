"""Every state against that of transformers and torch, where they are installed."""

import importlib.util

import numpy as np
from flax import nnx

from jaxalign.doctor import findings
from jaxalign.doctor.findings import SKIPPED, Finding, judged
from jaxalign.doctor.patient import Patient

CHECK = "every state is that of transformers"
SAME = 1e-3  # of the spread
LENGTH = 64  # tokens of the row


def against_transformers(examined: Patient, network: nnx.Module) -> Finding:
    """Compare all states of a row with `hidden_states` of the same checkpoint in torch, float32."""
    lacking = [x for x in ("torch", "transformers") if importlib.util.find_spec(x) is None]
    if lacking:
        return Finding(CHECK, SKIPPED, f"{' and '.join(lacking)} must be installed")
    model = examined.model
    folder = model.tokenizer_path
    if folder is None or not (folder / "config.json").is_file() or not model.names:
        said = "the checkpoint is in another format: write it with jaxalign.models.export first"
        return Finding(CHECK, SKIPPED, said)
    if model.design == "t5":
        return Finding(CHECK, SKIPPED, "a T5 has states of two stacks")
    import torch
    import transformers

    row = examined.long_row(LENGTH)
    ours = examined.states(network, row[None]).hidden[:, 0]
    try:
        theirs = transformers.AutoModel.from_pretrained(
            str(folder), dtype=torch.float32, local_files_only=True
        ).eval()
        with torch.no_grad():
            output = theirs(torch.tensor(row[None].astype(np.int64)), output_hidden_states=True)
    except Exception as error:  # what it raises depends on the class of the model
        said = f"transformers does not read it: {' '.join(str(error).split())[:200]}"
        return Finding(CHECK, SKIPPED, said)
    states = [x[0].float().numpy() for x in output.hidden_states]
    projected = len(states) == len(ours) and states[-1].shape != ours[-1].shape
    if projected:  # as OPT 350M's last one, to the width of its embedding
        states, ours = states[:-1], ours[:-1]
    if len(states) != len(ours) or states[0].shape != ours[0].shape:
        said = f"{len(ours)} layers of {ours[0].shape}, but {len(states)} of {states[0].shape}"
        return judged(CHECK, False, said)
    largest, layer = findings.farthest(findings.apart(ours, np.stack(states)))
    said = f"largest distance {largest:.1e} of the spread, in layer {layer} of {len(ours) - 1}"
    said += "; the last one, which transformers projects, is left out" if projected else ""
    return judged(CHECK, largest < SAME, said)
