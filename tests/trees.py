"""Comparisons of trees of arrays, leaf by leaf."""

import jax
import numpy as np


def assert_close(found, expected, *, rtol=1e-7, atol=0.0, share=0.0) -> None:
  """Requires that no leaf is far off; tolerances are those of NumPy.

  Args:
    found: a tree.
    expected: another one.
    rtol: allowed, relative to each number.
    atol: allowed beside it.
    share: allowed instead of `rtol`, relative to a leaf's largest number.
  """

  def compare(path, one, other):
    tolerances = {"rtol": rtol, "atol": atol}
    if share:
      tolerances = {"rtol": 0, "atol": atol + share * np.abs(other).max()}
    name = jax.tree_util.keystr(path)
    np.testing.assert_allclose(one, other, err_msg=name, **tolerances)

  jax.tree.map_with_path(compare, found, expected)


def assert_same_gradients(
  ours, plain, weights, *arguments, rtol=1e-10, atol=1e-12
) -> None:
  """Compares two functions' values, and the gradients of their weighted sum."""

  def both(*arguments):
    results = []
    for function in (ours, plain):
      value, pull_back = jax.vjp(function, *arguments)
      results.append((value, pull_back(weights)))
    return results

  assert_close(*jax.jit(both)(*arguments), rtol=rtol, atol=atol)
