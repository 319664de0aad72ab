"""Numbers that a report computes from a pool."""

import numpy as np

from nao_jax.pool import Pool
from nao_jax.report import analysis


def test_an_ancestor_is_compared_with_its_parent_in_its_own_first_round():
  """Scores of different rounds do not measure the same thing."""
  none = np.nan
  pool = Pool(
    tokens=np.array([[1, 1], [1, 2], [2, 2]], np.int32),
    origins=np.array([0, 1, 2], np.int32),
    parents=np.array([-1, 0, 1], np.int32),
    step_sizes=np.array([0, 3, 4], np.float32),
    alive=np.ones(3, bool),
    scores=np.array(
      [[0.1, 0.2, 0.3], [none, 0.5, 0.6], [none, none, 0.9]], np.float32
    ),
  )
  first, second, third = analysis.ancestors(pool, 2)
  assert [one.row for one in (first, second, third)] == [0, 1, 2]
  assert first.parent is None
  np.testing.assert_allclose(
    [second.first, second.parent, second.last], [0.5, 0.2, 0.6]
  )
  np.testing.assert_allclose(
    [third.first, third.parent, third.last], [0.9, 0.6, 0.9]
  )
  assert [one.changed for one in (second, third)] == [1, 1]
