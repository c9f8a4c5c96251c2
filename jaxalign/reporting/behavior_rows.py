"""What rows of the stage behavior hold, and what their sources and readers are called."""

CORRELATION = "futrell2018-pearsonr"
GAIN = "delta_log_likelihood"
BASELINE = "control"  # in the place of a context: what the regressions' baseline is made of
MEAN = "mean"
HELD_OUT = "held_out_story"


def name(row) -> str:
    """Return what a row's surprisal is called: an untrained network is one of some model."""
    if row.control_of:
        return f"{row.model} {row.control_of}"
    return row.model


def who(row) -> str:
    """Say whose times they are."""
    people = f"{row.num_participants} participants" if row.num_participants else "means"
    return f"{row.alignment} alignment, {people}"
