"""Methods of a report, in paragraphs fit for a paper, with references."""

from collections.abc import Sequence

import pandas as pd

from jaxalign.io import rows as rows_lib
from jaxalign.reporting.run.contents import Contents

NESTED_RIDGE = "nested-ridge"

# Cited as "(key)"; a work is listed where a paragraph names it.
REFERENCES = {
    "Aw et al., 2023": "Aw, K. L., Montariol, S., AlKhamissi, B., Schrimpf, M., & Bosselut, A. "
    "(2023). Instruction-tuning aligns LLMs to the human brain. arXiv:2312.00575.",
    "Benjamini & Hochberg, 1995": "Benjamini, Y., & Hochberg, Y. (1995). Controlling the false "
    "discovery rate. Journal of the Royal Statistical Society B, 57, 289-300.",
    "Blank et al., 2014": "Blank, I., Kanwisher, N., & Fedorenko, E. (2014). A functional "
    "dissociation between language and multiple-demand systems. Journal of Neurophysiology, 112, "
    "1105-1118.",
    "Brennan et al., 2016": "Brennan, J. R., Stabler, E. P., Van Wagenen, S. E., Luh, W.-M., & "
    "Hale, J. T. (2016). Abstract linguistic structure correlates with temporal activity during "
    "naturalistic comprehension. Brain and Language, 157-158, 81-94.",
    "Brown, 1910": "Brown, W. (1910). Some experimental results in the correlation of mental "
    "abilities. British Journal of Psychology, 3, 296-322.",
    "Cawley & Talbot, 2010": "Cawley, G. C., & Talbot, N. L. C. (2010). On over-fitting in model "
    "selection and subsequent selection bias. Journal of Machine Learning Research, 11, 2079-2107.",
    "Futrell et al., 2018": "Futrell, R., Gibson, E., Tily, H. J., et al. (2018). The Natural "
    "Stories corpus. Proceedings of LREC.",
    "Hoerl & Kennard, 1970": "Hoerl, A. E., & Kennard, R. W. (1970). Ridge regression: biased "
    "estimation for nonorthogonal problems. Technometrics, 12, 55-67.",
    "Oota et al., 2025": "Oota, S. R., et al. (2025). Correlating instruction-tuning (in "
    "multimodal models) with vision-language processing (in the brain). arXiv:2505.20029.",
    "Pereira et al., 2018": "Pereira, F., Lou, B., Pritchett, B., et al. (2018). Toward a "
    "universal decoder of linguistic meaning from brain activation. Nature Communications, 9, 963.",
    "Schrimpf et al., 2021": "Schrimpf, M., Blank, I. A., Tuckute, G., et al. (2021). The neural "
    "architecture of language: integrative modeling converges on predictive processing. PNAS, 118.",
    "Spearman, 1910": "Spearman, C. (1910). Correlation calculated from faulty data. British "
    "Journal of Psychology, 3, 271-295.",
    "Wehbe et al., 2014": "Wehbe, L., Murphy, B., Talukdar, P., et al. (2014). Simultaneously "
    "uncovering the patterns of brain regions involved in different story reading subprocesses. "
    "PLoS ONE, 9, e112575.",
    "Wilcoxon, 1945": "Wilcoxon, F. (1945). Individual comparisons by ranking methods. Biometrics "
    "Bulletin, 1, 80-83.",
}
_DATASETS = {
    "alice": "Brennan et al., 2016",
    "pereira2018": "Pereira et al., 2018",
    "blank2014": "Blank et al., 2014",
    "wehbe2014": "Wehbe et al., 2014",
    "futrell2018": "Futrell et al., 2018",
    "naturalstories": "Futrell et al., 2018",
}
_PAPERS = {"aw2024": "Aw et al., 2023", "oota2025": "Oota et al., 2025"}


def paragraphs(contents: Contents) -> list[str]:
    """Describe the methods: a paragraph for each protocol, one for comparisons, and references."""
    rows = contents.scores
    found = [_data(rows), *_reading(rows)]
    for name, part in rows.groupby("protocol", sort=False):
        name = str(name)
        if name.startswith(rows_lib.PUBLISHED):
            found.append(_published(name.removeprefix(rows_lib.PUBLISHED), part))
        elif name == NESTED_RIDGE:
            found.append(_nested(part, contents))
        else:
            row = part.iloc[0]
            said = contents.descriptions.get(name, f"Protocol {name}.")
            found.append(
                f"{row.num_samples} samples; context {row.context}, tokens pooled by "
                f"{row.pooling}. {said} Folds {row.folds_hash}."
            )
    if contents.found is not None:
        found.append(
            "Models were compared by percent gain of each tuned model over the model it was made "
            "from, with Wilcoxon's signed-rank test (Wilcoxon, 1945) and intervals from resampled "
            "pairs, and by Pearson and Spearman correlations of alignment with properties of "
            "models, over all models of a subset, within families, and without each family; "
            "p-values were adjusted over the tests of a family of hypotheses (Benjamini & "
            "Hochberg, 1995)."
        )
    return [*found, *references(found)]


def references(texts: Sequence[str]) -> list[str]:
    """List the works that texts name, in the order of the alphabet."""
    cited = [work for key, work in sorted(REFERENCES.items()) if any(key in x for x in texts)]
    return ["References: " + " ".join(cited)] if cited else []


def _data(rows: pd.DataFrame) -> str:
    datasets = list(dict.fromkeys(rows.dataset))
    named = []
    for name in datasets:
        cite = next((v for k, v in _DATASETS.items() if name.lower().startswith(k)), "")
        named.append(f"{name} ({cite})" if cite else name)
    networks = rows[rows.control_of == ""].model.nunique()
    kinds = "model" if networks == 1 else "models"
    return f"Alignment of {networks} {kinds} was measured on {', '.join(named)}."


def _reading(rows: pd.DataFrame) -> list[str]:
    """Say how networks read the stimuli, and what their layers are, as far as rows know it."""
    known = rows[(rows.control_of == "") & (rows.layer_name != "")]
    found = []
    for (model, *way), part in known.groupby(["model", *rows_lib.READING], sort=False):
        said = dict(zip(rows_lib.READING, way, strict=True))
        layers = part[["layer", "layer_name", "final_norm"]].drop_duplicates().sort_values("layer")
        normed = [str(x) for x in layers[layers.final_norm == "yes"].layer]
        first, last = layers.iloc[0], layers.iloc[-1]
        settings = ", ".join(f"{name} {value!r}" for name, value in said.items() if value)
        stacks = [x for x in layers.layer_name if x.startswith(("encoder.", "decoder."))]
        names = (
            ", ".join(layers.layer_name) if stacks else f"{first.layer_name} to {last.layer_name}"
        )
        norm = f"the final norm is applied in layer {' and '.join(normed)}"
        found.append(
            f"{model} was read with {settings}. Its layers {first.layer} to {last.layer} are "
            f"{names}; {norm if normed else 'no final norm is applied'}."
        )
    return found


def _published(paper: str, rows: pd.DataFrame) -> str:
    key = next((v for k, v in _PAPERS.items() if paper.startswith(k)), paper)
    return (
        f"Scores of {rows.model.nunique()} models are those that were published ({key}), taken "
        "from its tables or figures and not computed here: there are no folds and no subjects, and "
        "each is of the layer that is best on the data it is scored on, which is optimistic. "
        "Ceilings are those that were published with them; where they were extrapolated to "
        "infinitely many subjects, the method is that of Schrimpf et al. (Schrimpf et al., 2021)."
    )


def _nested(rows: pd.DataFrame, contents: Contents) -> str:
    row = rows.iloc[0]
    standard = "; responses in TRs standardised within each run" if contents.is_timed else ""
    return (
        f"{row.num_samples} samples; context {row.context}, tokens pooled by {row.pooling}. "
        f"Ridge regression (Hoerl & Kennard, 1970) with a free intercept, {len(row.fold_scores)} "
        f"{contents.folds}, one penalty "
        "per target and fold chosen by squared error on inner folds (the other outer blocks), so "
        "that nothing of a test block enters a choice (Cawley & Talbot, 2010); "
        f"means and scales of features from training samples alone{standard}. A score is the "
        "Pearson correlation of "
        "predicted and recorded responses in each held-out block, averaged over blocks, then over "
        "targets; scores are not divided by the ceiling. Ceilings are found on the same blocks: "
        "for a subject the correlation with the mean of the others, for the group the root of the "
        "Spearman-Brown split-half reliability over subjects (Spearman, 1910; Brown, 1910). "
        f"Folds {row.folds_hash}."
    )
