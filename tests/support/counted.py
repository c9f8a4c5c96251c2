"""Arithmetic counted in traced programs: products of matrices, each as often as it is run."""

import math

import jax


def flop(function, *args, turns=1.0, **options):
    """Count two operations for each multiplication in the matrix products of a function.

    A scan counts its body once for each step, which XLA's own cost analysis does not. `turns` is
    how often the body of a while loop is run.
    """
    return _count(jax.make_jaxpr(function, **options)(*args).jaxpr, turns)


def _count(jaxpr, turns):
    total = 0.0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            lengths = [equation.invars[0].aval.shape[i] for i in contracted]
            total += 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(lengths)
        elif name == "cond":  # of two ways to the same, the one that takes less
            total += min(_count(x.jaxpr, turns) for x in params["branches"])
        else:
            times = {"scan": params.get("length", 1), "while": turns}.get(name, 1)
            total += times * sum(_count(x, turns) for x in _inside(params))
    return total


def _inside(params):
    for value in params.values():
        for x in value if isinstance(value, (tuple, list)) else [value]:
            if hasattr(x, "jaxpr"):
                yield x.jaxpr
            elif hasattr(x, "eqns"):
                yield x
