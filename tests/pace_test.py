from hypothesis import given
from hypothesis import strategies as st
import pytest

from nao_jax.runs import chunking


@pytest.fixture
def clock(monkeypatch):
  """A clock that only moves when it is told to."""
  now = [0.0]
  monkeypatch.setattr(chunking.time, "monotonic", lambda: now[0])
  return now


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 30))
def test_every_step_is_in_one_call(first, end, most):
  steps = []
  for start, last in chunking.calls(first, end, most):
    assert 1 <= last - start <= most
    steps += range(start, last)
  assert steps == list(range(first, end))


@pytest.mark.parametrize(
  ("seconds", "most", "size"), [(0.1, 25, 10), (2.0, 25, 1), (0.001, 25, 25)]
)
def test_calls_take_about_a_second(clock, seconds, most, size):
  sizes = []
  for start, last in chunking.calls(0, 100, most):
    sizes.append(last - start)
    clock[0] += seconds * (last - start)
  assert sizes[0] == 1
  assert set(sizes[1:-1]) == {size}


def test_a_first_call_that_compiles_is_soon_forgotten(clock):
  sizes = []
  for start, last in chunking.calls(0, 100, 25):
    clock[0] += 30 if start == 0 else 0.01 * (last - start)
    sizes.append(last - start)
  assert sizes == [1, 1, 25, 25, 25, 23]
