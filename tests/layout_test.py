"""The places of a drawn cell's parts: no overlaps, and a way for each edge."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from nao_jax.drawing import layout

SIZES = layout.Sizes(op=50.0)


@st.composite
def cells(draw):
  """Draws the states that the branches of each node read: [nodes, 2]."""
  count = draw(st.integers(2, 7))
  return [
    [draw(st.integers(0, node + 1)) for _ in "ab"] for node in range(count)
  ]


def width(plan, at, state):
  if plan.row[state] < at:
    return SIZES.lane
  return SIZES.node if state >= 2 else SIZES.end


@given(cells())
def test_every_node_is_below_what_it_reads(inputs):
  row = layout.arrange(inputs, SIZES).row
  assert row[:2] == (0, 0)
  for node, sources in enumerate(inputs, 2):
    assert row[node] > max(row[source] for source in sources)
  assert max(map(row[2:].count, row[2:])) <= layout.WIDEST


@given(cells())
def test_a_state_has_a_lane_in_each_row_on_the_way_to_its_last_reader(inputs):
  plan = layout.arrange(inputs, SIZES)
  output = len(plan.rows)
  for state in range(len(inputs) + 2):
    readers = [n for n, sources in enumerate(inputs, 2) if state in sources]
    last = max((plan.row[reader] for reader in readers), default=output)
    present = [at for at, states in enumerate(plan.rows) if state in states]
    assert present == list(
      range(plan.row[state], max(last, plan.row[state] + 1))
    )


@given(cells())
def test_neighbours_keep_their_distance_and_stay_inside(inputs):
  plan = layout.arrange(inputs, SIZES)
  slack = 1e-6
  for at, states in enumerate(plan.rows):
    for state in states:
      half = width(plan, at, state) / 2
      assert half - slack <= plan.x[at, state] <= plan.width - half + slack
    for left, right in itertools.pairwise(states):
      halves = (width(plan, at, left) + width(plan, at, right)) / 2
      distance = plan.x[at, right] - plan.x[at, left]
      assert distance >= halves + SIZES.gap - slack


@given(cells())
def test_the_two_edges_into_a_node_do_not_cross(inputs):
  plan = layout.arrange(inputs, SIZES)
  for node, (first, second) in enumerate(inputs, 2):
    above = plan.rows[plan.row[node] - 1]
    crossed = above.index(first) > above.index(second)
    assert (node in plan.mirrored) == crossed


def test_two_nodes_that_read_one_input_each_need_no_crossing():
  # In the order of their numbers the edges would cross.
  plan = layout.arrange([[1, 1], [0, 0]], SIZES)
  assert plan.rows == ((0, 1), (3, 2))


def test_a_chain_is_a_column():
  plan = layout.arrange([[0, 1], [2, 2], [3, 3], [4, 4]], SIZES)
  assert plan.rows == ((0, 1), (2,), (3,), (4,), (5,))
  middles = {round(plan.x[at, at + 1], 6) for at in range(1, 5)}
  assert len(middles) == 1
  assert plan.width == SIZES.node


def test_the_same_cell_is_arranged_the_same_way():
  inputs = [[0, 1], [2, 0], [0, 3], [1, 2], [5, 0], [3, 1], [0, 1]]
  assert layout.arrange(inputs, SIZES) == layout.arrange(inputs, SIZES)


def crossings(rows, row, inputs):
  """Counted by the places of ends: ports of a node are a third apart."""
  count = 0
  for at, (above, below) in enumerate(itertools.pairwise(rows), 1):
    ends = []
    for place, state in enumerate(below):
      if row[state] < at:
        ends.append((above.index(state), place))
      else:
        starts = sorted(above.index(source) for source in inputs[state - 2])
        ends += zip(starts, (place - 1 / 3, place + 1 / 3), strict=True)
    for (a, b), (c, d) in itertools.combinations(ends, 2):
      count += (a < c and b > d) or (a > c and b < d)
  return count


@given(cells())
def test_no_exchange_of_two_neighbours_saves_a_crossing(inputs):
  plan = layout.arrange(inputs, SIZES)
  fewest = crossings(plan.rows, plan.row, inputs)
  for at, states in enumerate(plan.rows[1:], 1):
    for i in range(len(states) - 1):
      swapped = [*states[:i], states[i + 1], states[i], *states[i + 2 :]]
      rows = [*plan.rows[:at], swapped, *plan.rows[at + 1 :]]
      assert crossings(rows, plan.row, inputs) >= fewest
