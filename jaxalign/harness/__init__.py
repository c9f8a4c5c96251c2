"""Models of this library for lm-evaluation-harness.

The harness finds no models of other packages by itself: `python -m jaxalign.harness` is its command
line with `--model jaxalign`, and importing `jaxalign.harness.model` makes that name known to
`lm_eval.simple_evaluate`.
"""
