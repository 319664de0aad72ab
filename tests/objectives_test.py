"""Limits and fronts. Shapes: N points, M objectives, L tokens."""

import dataclasses

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
import jax
import numpy as np
import pytest

from nao_jax import objectives
from nao_jax.controller import ascent, fit
from nao_jax.controller.model import Controller, ControllerConfig
from nao_jax.errors import UserError
from nao_jax.networks.cost import cost
from nao_jax.networks.macro import NetworkConfig
from nao_jax.objectives import ConstraintConfig, CostConstraint
from nao_jax.pool import Pool
from nao_jax.search import loop
from nao_jax.search.config import SearchConfig
from nao_jax.spaces import cnn
from nao_jax.spaces.space import Space
from nao_jax.strategies import Observations
from nao_jax.strategies.evolution import Evolution
from nao_jax.strategies.local import Local
from nao_jax.strategies.nao import Nao, NaoConfig
from nao_jax.strategies.nao_plus import NaoPlus, NaoPlusConfig
from nao_jax.strategies.seminas import SemiNas, SemiNasConfig
from nao_jax.strategies.uniform import Uniform
from nao_jax.tasks import image_costs
from nao_jax.tasks.image_presets import PRESETS

POINTS = arrays.arrays(
  float,
  st.tuples(st.integers(1, 20), st.integers(1, 3)),
  elements=st.integers(-4, 4).map(float),
)
SPACE = Space("digits", ((1, 2, 3, 4),) * 6)
KEY = jax.random.key(0)


def _total(tokens):
  return tokens.sum(-1).astype(float)


def _dominates(one, other):
  return bool((one >= other).all() and (one > other).any())


@given(POINTS)
def test_the_front_is_what_none_dominates(points):
  on_front = objectives.front(points)
  for point, is_on in zip(points, on_front, strict=True):
    assert is_on != any(_dominates(other, point) for other in points)


@given(POINTS)
def test_each_front_is_that_of_what_is_left(points):
  numbers = objectives.fronts(points)
  for number in range(numbers.max() + 1):
    left = numbers >= number
    np.testing.assert_array_equal(
      objectives.front(points[left]), numbers[left] == number
    )


@given(POINTS, st.randoms(use_true_random=False))
def test_fronts_do_not_depend_on_order_or_units(points, random):
  order = list(range(len(points)))
  random.shuffle(order)
  other = np.exp(points[order]) * 3 + 1
  np.testing.assert_array_equal(
    objectives.fronts(points)[order], objectives.fronts(other)
  )


@given(POINTS)
def test_the_ends_of_a_front_are_the_loneliest(points):
  numbers = objectives.fronts(points)
  distance = objectives.crowding(points, numbers)
  assert (distance >= 0).all()
  for number in np.unique(numbers):
    rows = numbers == number
    for values in points[rows].T:
      ends = distance[rows][values == values.max()]
      assert np.isinf(ends).any()


@given(st.lists(st.floats(0, 1), max_size=12))
def test_picks_are_different_rows_and_ends_go_by_one_objective(weights):
  rng = np.random.default_rng(0)
  scores, costs = rng.uniform(size=(2, 8))
  rows = objectives.pick(scores, costs, np.array(weights))
  assert len(set(rows)) == len(rows) == min(len(weights), 8)
  assert objectives.pick(scores, costs, np.ones(1)) == [scores.argmax()]
  assert objectives.pick(scores, costs, np.zeros(1)) == [costs.argmin()]


def test_costs_are_asked_once_for_each_architecture():
  asked = []
  constraint = CostConstraint("total", lambda t: asked.extend(t) or _total(t))
  tokens = np.asarray(SPACE.sample(KEY, 30))
  first = constraint.costs(tokens)
  np.testing.assert_array_equal(constraint.costs(tokens[::-1]), first[::-1])
  assert len(asked) == len(np.unique(tokens, axis=0))


@pytest.mark.parametrize(
  ("values", "message"),
  [
    (np.ones(3), r"an array \[3\] for 2"),
    (np.array([1, 0.0]), "is 0.0; allowed: finite numbers above 0"),
    (np.array([np.nan, 1]), "is nan; allowed"),
  ],
)
def test_a_function_of_costs_that_gives_something_else_is_named(
  values, message
):
  tokens = np.asarray(SPACE.sample(KEY, 2))
  with pytest.raises(UserError, match=f"'mine'.* {message}"):
    CostConstraint("mine", lambda _: values).costs(tokens)


def test_scaled_costs_of_a_pool_are_from_0_to_1_in_any_unit():
  pool = np.asarray(SPACE.sample(KEY, 20))
  one = CostConstraint("a", _total, 12)
  other = CostConstraint("b", lambda t: 1000 * _total(t), 12_000)
  scaled = one.scaled(pool, pool)
  assert scaled.min() == 0
  assert scaled.max() == 1
  np.testing.assert_allclose(other.scaled(pool, pool), scaled, atol=1e-12)
  assert other.scaled_limit(pool) == pytest.approx(one.scaled_limit(pool))
  assert one.scaled(pool[:1], pool[:1]) == 0.5


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    ({"limit": "params"}, "`limit=params`: give a cost and a number above 0"),
    ({"limit": "params:-1"}, "give a cost and a number above 0"),
    ({"limit": "params:nan"}, "give a cost and a number above 0"),
    ({"limit": "size:3"}, "`limit=size:3`: the costs are params, latency"),
    ({"objectives": "params,score"}, "allowed: score, 'score,params'"),
    ({"limit": "params:3", "objectives": "score,latency"}, "name the same one"),
  ],
)
def test_flags_that_ask_for_nothing_sensible_are_named(flags, message):
  with pytest.raises(UserError, match=message):
    objectives.parse(ConstraintConfig(**flags), ("params", "latency"))


def test_flags_say_cost_limit_and_trade():
  def parsed(**flags):
    return objectives.parse(ConstraintConfig(**flags), ("params", "latency"))

  assert parsed() is None
  assert parsed(limit="params:3e6") == ("params", 3e6, False)
  assert parsed(objectives="score,params") == ("params", np.inf, True)
  both = parsed(limit="latency:5", objectives="score,latency")
  assert both == ("latency", 5.0, True)


def _controller(estimates_cost):
  sizes = ControllerConfig(
    embedding=4, hidden=8, mlp_layers=1, mlp_width=8, mlp_dropout=0.0
  )
  return Controller(SPACE, sizes, estimates_cost)


def _strategies(constraint):
  controller = _controller(constraint.uses_cost_gradient)
  return {
    "nao": Nao(
      controller,
      fit.FitConfig(epochs=20, batch=8, learning_rate=1e-2),
      NaoConfig(top_k=6, max_step_size=8, held_out=0.25),
    ),
    "nao_plus": NaoPlus(
      controller,
      NaoPlusConfig(members=2, pretraining=10, steps=2, seeds=4, passes=1),
    ),
    "seminas": SemiNas(
      controller,
      fit.FitConfig(epochs=20, batch=8, learning_rate=1e-2),
      SemiNasConfig(
        top_k=6, max_step_size=8.0, unlabelled=30, epochs=1, repeats=1
      ),
    ),
    "random": Uniform(SPACE),
    "evolution": Evolution(SPACE),
    "local": Local(SPACE),
  }


def _weighted(tokens):
  return (tokens * np.arange(1, 7)).sum(-1).astype(float)


def _searched(name, constraint, extend=True, rounds=2, **arguments) -> Pool:
  return loop.run(
    SPACE,
    _weighted,
    KEY,
    SearchConfig(12, rounds, new_per_round=4, extend=extend),
    strategy=_strategies(constraint)[name],
    constraint=constraint,
    **arguments,
  )


@pytest.mark.parametrize(
  "name", ["nao", "nao_plus", "seminas", "random", "evolution", "local"]
)
def test_nothing_beyond_the_limit_is_ever_evaluated(name):
  # An eighth of the space is within it.
  constraint = CostConstraint("total", _total, limit=12)
  pool = _searched(name, constraint)
  assert len(pool.tokens) > 12
  assert constraint.costs(pool.tokens).max() <= 12


@pytest.mark.parametrize("name", ["nao_plus", "evolution"])
def test_in_a_trade_no_member_of_the_front_leaves_the_pool(name):
  constraint = CostConstraint("total", _total, multi_objective=True)
  pool = _searched(name, constraint, extend=False, rounds=1)
  points = np.stack([pool.scores[:, 0], -constraint.costs(pool.tokens)], -1)[
    :12
  ]
  gone = ~pool.alive[:12]
  assert gone.sum() == 4
  assert not (gone & objectives.front(points)).any()


def test_the_same_search_is_the_same_and_leaves_its_front(tmp_path):
  constraint = CostConstraint("total", _total, limit=14, multi_objective=True)
  pool = _searched("nao_plus", constraint, workdir=tmp_path / "run")
  again = _searched("nao_plus", dataclasses.replace(constraint, known={}))
  jax.tree.map(np.testing.assert_array_equal, pool, again)
  outcome = objectives.outcome(constraint, pool.tokens, pool.scores[:, 2], str)
  assert outcome["cost"]["limit"] == 14
  costs = [row["total"] for row in outcome["front"]]
  scores = [row["score"] for row in outcome["front"]]
  assert costs == sorted(costs)
  assert scores == sorted(scores)
  assert scores[-1] == pool.scores[:, 2].max()


def test_a_limit_that_admits_next_to_nothing_says_so():
  with pytest.raises(
    UserError, match=r"`constraint.limit=total:6`: only 1 of .* 6;"
  ):
    _searched("random", CostConstraint("total", _total, limit=6))


def test_a_given_architecture_beyond_the_limit_is_named():
  with pytest.raises(UserError, match="`given`: architecture 1 of 1 has total"):
    _searched(
      "random",
      CostConstraint("total", _total, limit=12),
      given=np.full((1, 6), 4, np.int32),
    )


def test_only_a_constraint_with_a_gradient_adds_a_predictor():
  plain, costly = (_controller(x).init(KEY) for x in (False, True))
  assert {*costly} - {*plain} == {"cost"}
  for part in plain:
    jax.tree.map(np.testing.assert_array_equal, plain[part], costly[part])
  assert not CostConstraint(
    "total", _total, limit=9, penalty=0
  ).uses_cost_gradient
  assert not CostConstraint("total", _total).uses_cost_gradient


def test_the_ascent_turns_away_from_costs():
  controller = _controller(True)
  params = controller.init(KEY)
  tokens = SPACE.sample(KEY, 5)
  outputs, embedding = controller.encode(params, tokens)
  ones, zeros = np.ones(5, np.float32), np.zeros(5, np.float32)

  def moved(weights):
    step = np.float32([1e-2])
    points = ascent.ascend(
      params, outputs, step, weights, controller=controller
    )[0]
    return controller.estimate(params, ascent.embed(points))

  before = controller.estimate(params, embedding)
  assert (
    moved(ascent.ObjectiveWeights(zeros, ones, zeros, zeros)) < before
  ).all()
  assert (
    moved(ascent.ObjectiveWeights(zeros, zeros, ones, before)) < before
  ).all()
  # Far below the limit the excess is nothing, and the score alone counts.
  far = ascent.ObjectiveWeights(ones, zeros, ones, before + 100)
  np.testing.assert_allclose(moved(far), moved(None), rtol=1e-6)


def test_a_controller_learns_costs_beside_scores():
  controller = _controller(True)
  tokens = np.asarray(SPACE.sample(KEY, 40))
  constraint = CostConstraint("total", _total)
  seen = Observations(tokens, _weighted(tokens), set(), dataclasses.replace(
    constraint, multi_objective=True
  ))  # fmt: skip
  config = fit.FitConfig(epochs=300, batch=40, learning_rate=1e-2)
  state = fit.start(controller.init(KEY), config)
  targets = fit.normalise_targets(np.float32(seen.scores))
  state, _ = fit.fit(
    state, KEY, fit.Examples(tokens, targets, seen.costs()),
    controller=controller, config=config,
  )  # fmt: skip
  _, embedding = controller.encode(state.params, tokens)
  found = controller.estimate(state.params, embedding)
  assert np.corrcoef(found, seen.costs())[0, 1] > 0.9


CELLS = cnn.space(3)


def _table(tmp_path, text):
  file = tmp_path / "latency.csv"
  file.write_text(text)
  return str(file)


def _lines():
  yield "cell,op,milliseconds"
  yield "network,,2"
  for cell in "normal", "reduction":
    for number, op in enumerate(cnn.OP_SETS["small"]):
      yield f"{cell},{op},{number + 10 * (cell == 'reduction')}"


def test_a_latency_is_the_sum_of_the_branches(tmp_path):
  function = image_costs.table_cost(
    _table(tmp_path, "\n".join(_lines())), "small"
  )
  tokens = np.asarray(CELLS.sample(KEY, 20))
  ops = np.asarray(cnn.to_cells(tokens))[..., [1, 3]]
  expected = 2 + ops.sum((1, 2, 3)) + 10 * 6
  np.testing.assert_array_equal(function(tokens), expected)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda text: "", "the first line must be cell,op,milliseconds"),
    (
      lambda text: text.replace("normal,identity,4\n", ""),
      "no row normal,iden",
    ),
    (lambda text: text.replace("network,,2", "network,2"), "line 2: 2 values"),
    (
      lambda text: text.replace("network,,2", "network,,x"),
      "line 2: 'x' is no",
    ),
    (lambda text: text.replace("network,,2", "network,,inf"), "'inf' is not a"),
    (lambda text: text.replace("sep_conv_3x3", "conv"), "line 3: normal,conv"),
    (lambda text: "\0" + text, "first line must be|cannot be read"),
  ],
)
def test_a_malformed_table_of_latencies_is_named(tmp_path, change, message):
  path = _table(tmp_path, change("\n".join(_lines())))
  with pytest.raises(UserError, match=f"`constraint.latency_table=.*{message}"):
    image_costs.read_table(path, "small")


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (
      {"limit": "latency:3"},
      "`constraint.latency_table`, or from the argument",
    ),
    ({"latency_table": "x.csv"}, "x.csv`: nothing asks for a latency"),
    (
      {"limit": "latency:3", "latency_table": "x.csv"},
      "`constraint.latency_table=x.csv`: cannot be read",
    ),
  ],
)
def test_flags_that_do_not_fit_together_are_named(flags, message):
  config = dataclasses.replace(
    PRESETS["digits"], constraint=ConstraintConfig(**flags)
  )
  with pytest.raises(UserError, match=message):
    image_costs.check(config, None)


def test_costs_are_those_of_the_final_network_in_any_encoding():
  config = dataclasses.replace(
    PRESETS["digits"],
    encoding="triples",
    network=NetworkConfig(ops="large", nodes=2),
    constraint=ConstraintConfig(limit="params:1e6"),
  )
  constraint = image_costs.constraint(config, (8, 8, 1))
  space = cnn.space(2, "large", "triples")
  row = np.asarray(space.sample(KEY, 1))
  pairs = cnn.to_tokens(cnn.to_cells(row, "triples"))
  network = config.final.network(config.network)
  encoded = loop.of_plain_tokens(constraint, space)
  assert encoded.costs(row) == [cost(network, pairs[0], 8, 1).parameters]
