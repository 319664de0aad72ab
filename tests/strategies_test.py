"""Every strategy: what it is told, and what it answers."""

import dataclasses
import types

import jax
import numpy as np
import pytest

from nao_jax.controller import metrics
from nao_jax.controller.fit import FitConfig
from nao_jax.controller.model import Controller, ControllerConfig
from nao_jax.spaces import cnn, nasbench201, rnn
from nao_jax.spaces.space import Space
from nao_jax.strategies import Observations, candidates, ensemble, nao_plus
from nao_jax.strategies.evolution import Evolution
from nao_jax.strategies.local import Local
from nao_jax.strategies.nao import Nao, NaoConfig
from nao_jax.strategies.nao_plus import NaoPlus, NaoPlusConfig
from nao_jax.strategies.seminas import SemiNas, SemiNasConfig
from nao_jax.strategies.uniform import Uniform, sample_new
from tests.stand_ins import nothing

SIZES = ControllerConfig(
  embedding=8, hidden=16, mlp_layers=1, mlp_width=8, mlp_dropout=0.0
)
PLUS = NaoPlusConfig(
  members=2,
  pretraining=30,
  steps=75,
  most_steps=900,
  labelled=8,
  unlabelled=2,
  learning_rate=1e-2,
  seeds=3,
  step_sizes=(0.5, 2.0),
  passes=2,
)
SPACES = {
  "table": nasbench201.space(),
  "cells": cnn.space(2),
  "recurrent": rnn.space(3),
}
STRATEGIES = {
  "nao": lambda space: Nao(
    Controller(space, SIZES), FitConfig(epochs=20, batch=8), NaoConfig(top_k=4)
  ),
  "nao_plus": lambda space: NaoPlus(Controller(space, SIZES), PLUS),
  "seminas": lambda space: SemiNas(
    Controller(space, dataclasses.replace(SIZES, residual=True)),
    FitConfig(epochs=20, batch=8),
    SemiNasConfig(
      top_k=4, max_step_size=9.0, unlabelled=20, epochs=10, repeats=2
    ),
  ),
  "random": Uniform,
  "evolution": lambda space: Evolution(space, population=6, tournament=2),
  "local": Local,
}
# Controllers compile; one space is enough for each of them.
CASES = (
  ("nao", "recurrent"),
  ("nao_plus", "table"),
  ("seminas", "recurrent"),
  *(
    (name, space)
    for name in ("random", "evolution", "local")
    for space in ("table", "cells")
  ),
)
LIMIT = 4


def _seen(space: Space, count=12, seed=0):
  tokens = sample_new(space, jax.random.key(seed), count, set())
  scores = np.random.default_rng(seed).normal(size=count)
  return Observations(tokens, scores, set(space.keys(tokens)))


def _propose(strategy, seen, seed=0, limit=LIMIT):
  init, tell, ask = jax.random.split(jax.random.key(seed), 3)
  state, _ = strategy.tell(strategy.init(init), tell, seen, nothing, nothing)
  return strategy.ask(state, ask, seen, limit)[1]


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def proposed(request):
  """A strategy, the pool that it saw, and its proposals."""
  name, space = request.param[0], SPACES[request.param[1]]
  seen, strategy = _seen(space), STRATEGIES[name](space)
  return types.SimpleNamespace(
    name=name,
    space=space,
    strategy=strategy,
    seen=seen,
    proposal=_propose(strategy, seen),
  )


@pytest.fixture(params=SPACES)
def space(request):
  return SPACES[request.param]


def test_proposals_are_new_architectures_no_two_alike(proposed):
  tokens, space = proposed.proposal.tokens, proposed.space
  names = space.keys(tokens)
  assert all(space.accepts(row) for row in tokens)
  assert proposed.seen.known.isdisjoint(names)
  assert len(set(names)) == len(names) <= LIMIT
  if proposed.name not in ("nao", "seminas"):  # They take what they find.
    assert len(names) == LIMIT
  assert len(proposed.proposal.parents) == len(names)
  assert len(proposed.proposal.step_sizes) == len(names)


def test_one_key_gives_one_answer(proposed):
  again = _propose(proposed.strategy, proposed.seen)
  np.testing.assert_array_equal(again.tokens, proposed.proposal.tokens)


def test_equal_scores_are_nothing_to_learn_from_but_no_fault(proposed):
  equal = np.zeros(len(proposed.seen.scores))
  seen = proposed.seen._replace(scores=equal)
  tokens = _propose(proposed.strategy, seen).tokens
  assert all(proposed.space.accepts(row) for row in tokens)
  assert seen.known.isdisjoint(proposed.space.keys(tokens))


class _Everything(set):
  def __contains__(self, name):
    return True


def test_nao_proposes_nothing_where_everything_is_known():
  space = SPACES["recurrent"]
  seen = _seen(space)._replace(known=_Everything())
  assert not len(_propose(STRATEGIES["nao"](space), seen).tokens)


def test_parents_are_members_of_the_pool(proposed):
  parents = proposed.proposal.parents
  assert (parents >= -1).all()
  assert (parents < len(proposed.seen.tokens)).all()


def test_children_of_evolution_differ_in_one_token_from_the_newest(space):
  seen = _seen(space, 30)
  evolution = Evolution(space, population=5, tournament=2)
  proposal = _propose(evolution, seen, limit=10)
  parents = seen.tokens[proposal.parents]
  assert ((parents != proposal.tokens).sum(-1) == 1).all()
  assert (proposal.parents >= 25).all()


def test_a_tournament_of_all_takes_the_best():
  space = SPACES["table"]
  seen = _seen(space, 8)
  evolution = Evolution(space, population=8, tournament=200)
  proposal = _propose(evolution, seen)
  assert set(proposal.parents) == {np.argmax(seen.scores)}


def _climb(space, value, budget, seed=0):
  """Returns the architectures that local search evaluates, one by one."""
  local = Local(space)
  tokens = sample_new(space, jax.random.key(seed), 1, set())
  state = local.init(jax.random.key(0))
  while len(tokens) < budget:
    seen = Observations(tokens, value(tokens), set(space.keys(tokens)))
    key = jax.random.key(len(tokens))
    state, _ = local.tell(state, key, seen, nothing, nothing)
    state, proposal = local.ask(state, key, seen, 1)
    tokens = np.concatenate([tokens, proposal.tokens])
  return tokens


def test_local_search_moves_to_the_first_better_neighbour():
  space = rnn.space(4)
  weights = np.random.default_rng(0).normal(size=space.legal.shape)

  def value(tokens):
    return weights[np.arange(space.length), tokens].sum(-1)

  tokens = _climb(space, value, 40)
  best = tokens[0]
  for at, row in enumerate(tokens[1:], 1):
    # Neighbours of the best one so far, until there is a better one.
    if (row != best).sum() > 1:
      around = space.keys(space.neighbours(best))
      assert set(around) <= set(space.keys(tokens[:at]))  # A peak.
      break
    if value(row[None]) > value(best[None]):
      best = row


def test_local_search_starts_from_the_best_of_the_pool(space):
  seen, local = _seen(space), Local(space)
  state, _ = local.tell(
    local.init(jax.random.key(0)), jax.random.key(1), seen, nothing, nothing
  )
  np.testing.assert_array_equal(state.tokens, seen.tokens[seen.order[0]])
  _, proposal = local.ask(state, jax.random.key(2), seen, LIMIT)
  around = set(space.keys(space.neighbours(state.tokens)))
  assert set(space.keys(proposal.tokens)) <= around


@pytest.mark.timeout(60)
def test_local_search_stays_where_no_neighbour_is_better(space):
  """Moving to an equally good neighbour would go round in circles."""
  local, start = Local(space), _seen(space, 1).tokens
  tokens = np.concatenate([start, space.neighbours(start[0])[:5]])
  seen = Observations(tokens, np.zeros(len(tokens)), set(space.keys(tokens)))
  state = local.init(jax.random.key(0))
  for key in jax.random.split(jax.random.key(1)):
    state, _ = local.tell(state, key, seen, nothing, nothing)
    np.testing.assert_array_equal(state.tokens, start[0])


def test_local_search_starts_anew_on_a_peak():
  space = rnn.space(2)
  tokens = _climb(space, lambda tokens: -np.arange(len(tokens)), 30)
  around = set(space.keys(space.neighbours(tokens[0])))
  names = space.keys(tokens)
  assert around < set(names)  # All of them, and others.
  assert len(set(names)) == len(names)


def test_neighbours_are_all_that_differ_in_one_token(space):
  for row in _seen(space, 3).tokens:
    found = {tuple(other) for other in space.neighbours(row).tolist()}
    expected = set()
    for position in range(space.length):
      for token in range(space.vocabulary):
        other = [*row[:position], token, *row[position + 1 :]]
        if token != row[position] and space.accepts(other):
          expected.add(tuple(map(int, other)))
    assert found == expected


def test_neighbours_obey_what_may_follow():
  space = Space(
    name="pairs", choices=((1, 2), (3, 4, 5)), follows=((1, (3, 4)), (2, (5,)))
  )
  found = space.neighbours(np.array([1, 3])).tolist()
  assert found == [[1, 4]]


@pytest.fixture(scope="module")
def fitted():
  """An ensemble after many steps on few architectures."""
  space = SPACES["table"]
  strategy = STRATEGIES["nao_plus"](space)
  seen = _seen(space)
  begin = strategy.init(jax.random.key(0))
  state, _ = strategy.tell(begin, jax.random.key(1), seen, nothing, nothing)
  return types.SimpleNamespace(
    strategy=strategy, seen=seen, state=state, begin=begin
  )


def _predicted(fitted, params):
  controller = fitted.strategy.controller

  def one(params):
    _, embedding = controller.encode(params, fitted.seen.tokens)
    return controller.predict(params, embedding)

  return np.asarray(jax.vmap(one)(params))


def test_every_member_learns_the_ranks_that_it_is_shown(fitted):
  ranks = np.argsort(np.argsort(fitted.seen.scores)) / 11
  shown = ~fitted.strategy._held_out(fitted.seen.tokens)

  def error(params):
    squares = np.square(_predicted(fitted, params) - ranks)
    return np.mean(squares, axis=1, where=shown)

  assert (error(fitted.state.params) < error(fitted.begin.params) / 5).all()


def test_a_member_is_shown_everything_but_what_is_held_out_of_it(fitted):
  seen, strategy = fitted.seen, fitted.strategy
  rng = np.random.default_rng(0)
  shown = [
    lessons.tokens
    for lessons in nao_plus._lessons(rng, seen, 100, 0.8, strategy)
  ]
  hidden = strategy._held_out(seen.tokens)
  for member, rows in enumerate(np.concatenate(shown).swapaxes(0, 1)):
    found = {row.tobytes() for row in rows.reshape(-1, rows.shape[-1])}
    assert found == {row.tobytes() for row in seen.tokens[~hidden[member]]}


def test_the_ensemble_is_measured_where_it_was_not_fitted(fitted):
  _, lessons = fitted.strategy.tell(
    fitted.state, jax.random.key(2), fitted.seen, nothing, nothing
  )
  predicted, hidden = lessons["member_predicted"], lessons["member_held_out"]
  assert hidden.all()
  expected = metrics.ranking(predicted, fitted.seen.scores)
  assert lessons["kendall_tau"] == expected.kendall
  # What two members were fitted to would be known by heart.
  assert lessons["spearman"] < 0.9
  assert 0 < lessons["token_accuracy"] <= 1


def test_a_member_says_how_much_it_saw_without_scores(fitted):
  _, lessons = fitted.strategy.tell(
    fitted.state, jax.random.key(2), fitted.seen, nothing, nothing
  )
  drawn = lessons["unlabelled"]
  space = fitted.strategy.controller.space
  rows = np.asarray(space.sample(jax.random.key(0), drawn))
  share = len(np.unique(rows, axis=0)) / space.sequences
  assert drawn == PLUS.unlabelled * (PLUS.pretraining + 24 * PLUS.steps)
  assert lessons["unlabelled_share"] == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("members", [1, 2, 5])
def test_each_architecture_is_held_out_of_one_member(members):
  space = SPACES["cells"]
  strategy = NaoPlus(
    Controller(space, SIZES), dataclasses.replace(PLUS, members=members)
  )
  hidden = strategy._held_out(_seen(space, 40).tokens)
  assert hidden.shape == (members, 40)
  # One that is alone learns from all.
  assert (hidden.sum(0) == (members > 1)).all()


def test_the_gradients_of_each_member_are_clipped(fitted):
  strategy, largest = fitted.strategy, 1e-3
  config = dataclasses.replace(PLUS, clip=largest)
  lessons = next(
    nao_plus._lessons(np.random.default_rng(0), fitted.seen, 1, 0.8, strategy)
  )
  begin = ensemble.start(
    jax.random.key(0), controller=strategy.controller, config=config
  )
  after = ensemble.train(
    begin,
    jax.random.key(1),
    jax.tree.map(lambda leaf: leaf[:1], lessons),
    controller=strategy.controller,
    config=config,
  )
  # The first moment after a step is a tenth of the gradient.
  squares = jax.tree.map(
    lambda leaf: np.square(leaf).reshape(PLUS.members, -1).sum(1),
    after.optimiser.mu,
  )
  lengths = np.sqrt(sum(jax.tree.leaves(squares)))
  np.testing.assert_allclose(lengths, largest / 10, rtol=1e-4)


def test_members_differ(fitted):
  one, other = _predicted(fitted, fitted.state.params)
  assert np.abs(one - other).max() > 1e-3


def test_a_first_fit_has_steps_for_every_architecture(fitted):
  assert fitted.state.steps == PLUS.pretraining + 12 * PLUS.steps


def test_a_later_fit_has_steps_for_the_new_ones_up_to_a_limit(fitted):
  for asked, steps in ((1, PLUS.steps), (99, PLUS.most_steps)):
    state, _ = fitted.strategy.tell(
      fitted.state._replace(asked=np.int32(asked)),
      jax.random.key(2),
      fitted.seen,
      nothing,
      nothing,
    )
    assert state.steps - fitted.state.steps == steps


def test_what_was_asked_for_is_remembered(fitted):
  state, proposed = fitted.strategy.ask(
    fitted.state, jax.random.key(3), fitted.seen, 3
  )
  assert state.asked == len(proposed.tokens) == 3


def test_the_progress_of_a_fit_ends_at_its_total(fitted):
  calls = []
  fitted.strategy.tell(
    fitted.state._replace(asked=np.int32(1)),
    jax.random.key(2),
    fitted.seen,
    lambda phase, done, total: calls.append((done, total)),
    nothing,
  )
  assert calls == [(done, 8) for done in range(1, 9)]


@pytest.mark.parametrize("asked", [0, 1])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_fit_goes_on_from_whatever_was_kept(fitted, asked, share):
  """Stops the first and a later fit near its begin, within and at its end.

  The first stop is while the ensemble learns to reconstruct.
  """
  state = fitted.state if asked else fitted.begin
  state = state._replace(asked=np.int32(asked))
  kept = []

  def tell(state, keep):
    return fitted.strategy.tell(
      state, jax.random.key(1), fitted.seen, nothing, keep
    )[0]

  whole = tell(state, lambda state, _: kept.append(jax.device_get(state)))
  again = tell(kept[round(share * (len(kept) - 1))], nothing)
  jax.tree.map(np.testing.assert_array_equal, whole, again)


@pytest.mark.parametrize(
  ("exploration", "order"), [(0, [1, 0, 2, 4, 3]), (0.5, [0, 2, 1, 4, 3])]
)
def test_candidates_are_ranked_by_mean_and_spread_of_the_ensemble(
  exploration, order
):
  predicted = np.float32([[9, 0], [6, 5], [0, 9], [1, 1], [2, 2]])
  rows = np.arange(5)
  found = candidates.Predicted(rows[:, None], predicted, rows, rows)
  observed = Observations(rows[:, None], rows, set())
  rng = np.random.default_rng(0)
  chosen = candidates.choose(found, observed, rng, 5, exploration)
  np.testing.assert_array_equal(chosen.parents, order)


@pytest.mark.parametrize("name", ["nao_plus", "random", "evolution", "local"])
def test_a_space_that_is_used_up_ends_the_proposals(name):
  space = SPACES["table"]
  functions = space.functions
  every = functions.tokens(functions.representative)
  seen = _seen(space)._replace(known=set(space.keys(every)))
  proposal = _propose(STRATEGIES[name](space), seen)
  assert not len(proposal.tokens)
