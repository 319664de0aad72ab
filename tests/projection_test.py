"""The projection of searches to many accelerators."""

import hypothesis
from hypothesis import strategies as st
import pytest

from benchmarks.projection import Phase

LINK = 1e9
seconds, counts = st.floats(1, 1e6), st.integers(1, 1000)


@hypothesis.given(seconds, counts, counts, counts)
def test_more_accelerators_never_take_longer_where_nothing_is_sent(
  seconds, parts, one, more
):
  phase = Phase("score", seconds, parts)
  few, many = sorted([one, more])
  assert phase.on(1, LINK) == pytest.approx(seconds)
  assert phase.on(many, LINK) <= phase.on(few, LINK) * (1 + 1e-9)
  # All cannot be busier than they were, nor can more than its parts help.
  assert phase.on(many, LINK) >= seconds / many * (1 - 1e-9)
  assert phase.on(many, LINK) >= seconds / parts * (1 - 1e-9)


def test_what_is_added_up_over_two_goes_each_way_once():
  phase = Phase("train", 10.0, 2, calls=3, bytes_a_call=5e8)
  assert phase.on(2, LINK) == pytest.approx(10 / 2 + 3 * 0.5)
  assert phase.on(1, LINK) == pytest.approx(10)
