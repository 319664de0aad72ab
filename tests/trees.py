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
