"""NAO for few evaluations: an ensemble, ranked candidates, several passes.

Like `nao`, the strategy moves embeddings of the best architectures along the
predictor's gradient and decodes them. It differs in these points: predictions
come from an ensemble of controllers; these also train on the reconstruction of
architectures without a score, and on ranks instead of scores; candidates are
encoded again and ranked by the ensemble's prediction; the best candidates are
the seeds of the next pass.

Shapes: E controllers, N architectures in the pool, L tokens, K seeds, S step
sizes, M candidates of a pass (E S K).
"""

from collections.abc import Callable
import dataclasses
import functools
import itertools
import math

import jax
import numpy as np
import scipy

from nao_jax.controller import metrics
from nao_jax.controller.model import Controller, ControllerConfig, Params
from nao_jax.settings import field
from nao_jax.spaces.space import Space
from nao_jax.strategies import (
  Observations,
  Proposal,
  candidates,
  correction,
  ensemble,
  folds,
  generator,
  proposal,
)
from nao_jax.strategies.candidates import Predicted
from nao_jax.strategies.controller_metrics import inspection
from nao_jax.strategies.correction import Correction
from nao_jax.strategies.ensemble import Ensemble, Lessons, NaoPlusConfig
from nao_jax.strategies.projection import project
from nao_jax.strategies.proxies import Proxy
from nao_jax.strategies.uniform import sample_new

# Training steps in one call of the program, whose shape must not depend on the
# number of steps in a round.
STEPS_A_CALL = 10
# The least number of rows for which the ensemble predicts; fewer are padded.
_LEAST_JUDGED = 128


@dataclasses.dataclass(frozen=True)
class NaoPlus:
  """Strategy with an ensemble of controllers; its state is an `Ensemble`.

  Attributes:
    controller: space and sizes of each controller.
    config: settings of the fit and the proposals.
    proxies: signals that correct the predictions; those that are not `quick`
      are left out. See `correction`.
  """

  controller: Controller
  config: NaoPlusConfig = NaoPlusConfig()
  proxies: tuple[Proxy, ...] = field((), added=True)

  @property
  def _settings(self) -> dict:
    return {"controller": self.controller, "config": self.config}

  def init(self, key: jax.Array) -> Ensemble:
    """Returns newly initialised controllers; consumes the key."""
    return ensemble.start(key, **self._settings)

  def tell(
    self,
    state: Ensemble,
    key: jax.Array,
    observed: Observations,
    progress: Callable[[str, int, int], None],
    keep: Callable[[Ensemble, int], None],
  ) -> tuple[Ensemble, dict]:
    """Fits all controllers; the first fit begins with reconstruction alone.

    Implements `Strategy.tell`.
    """
    config = self.config
    new = int(state.asked) or len(observed.tokens)
    parts = [(min(config.steps * new, config.most_steps), config.trade_off)]
    if not state.began:
      parts.insert(0, (config.pretraining, 0.0))
    calls = sum(-(-steps // STEPS_A_CALL) for steps, _ in parts)
    rows_key, steps_key = jax.random.split(key)
    rng, reached = generator(rows_key), int(state.began)
    every = (_lessons(rng, observed, *part, self) for part in parts)
    # A resumed fit draws the lessons of finished steps again and skips them.
    for done, lessons in enumerate(itertools.chain.from_iterable(every), 1):
      reached += int(np.sum(lessons.rates > 0))
      if reached <= state.steps:
        continue
      state = ensemble.train(state, steps_key, lessons, **self._settings)
      keep(state, STEPS_A_CALL)
      progress("fit controllers", done, calls)
    state = state._replace(began=state.steps)
    unseen = self._unseen(state.params, observed.tokens)
    found = self._inspect(state.params, observed, *unseen)
    if (correct := self._correction(observed, *unseen)) is not None:
      found["signals"] = correct.described
    return state, found | self._unlabelled(state)

  def ask(
    self, state: Ensemble, key: jax.Array, observed: Observations, limit: int
  ) -> tuple[Ensemble, Proposal]:
    """Moves, decodes and ranks, pass after pass; implements `Strategy.ask`."""
    space, known = self.controller.space, set(observed.known)
    weights_key, draw_key = jax.random.split(key)
    # Different from the two keys above.
    rng = generator(jax.random.fold_in(key, 2))
    judged = self._corrected(state.params, observed)
    found, decoded = self._candidates(
      state.params, judged, weights_key, observed, known, rng
    )
    chosen = candidates.choose(
      found, observed, rng, limit, self.config.exploration
    )
    # Random architectures make up for missing proposals, so that a search never
    # stalls.
    drawn = proposal(
      sample_new(
        space, draw_key, limit - len(chosen.tokens), known, observed.constraint
      )
    )
    tokens = np.concatenate([chosen.tokens, drawn.tokens])
    parents = np.concatenate([chosen.parents, drawn.parents])
    report = {"candidates": len(found.tokens), "drawn": len(drawn.tokens)}
    report |= {"decoded": decoded} | self._by_step_size(found)
    report |= self._view(
      state.params, judged, observed.tokens, tokens, parents, found
    )
    return state._replace(asked=np.int32(len(tokens))), Proposal(
      tokens,
      parents,
      np.concatenate([chosen.step_sizes, drawn.step_sizes]),
      report,
    )

  def _candidates(
    self, params, judged, key, observed: Observations, known: set[bytes], rng
  ) -> tuple[Predicted, int]:
    """Returns the new candidates of all passes, and how many were decoded.

    Each pass moves the best candidates of the pass before. Candidates are added
    to `known`.
    """
    best = observed.order[: self.config.seeds]
    seeds, parents = observed.tokens[best], best
    passes, decoded = [self._none], 0
    for number in range(self.config.passes):
      tokens, origin = self._move(
        params, jax.random.fold_in(key, number), seeds, parents, observed
      )
      decoded += len(tokens)
      new = candidates.first_new(self.controller.space, tokens, known)
      new = new[observed.allows(tokens[new])]
      if not len(new):
        break
      passes.append(
        Predicted(
          tokens[new],
          judged(tokens[new]),
          *(column[new] for column in origin),
        )
      )
      chosen = candidates.choose(passes[-1], observed, rng, self.config.seeds)
      seeds, parents = chosen.tokens, chosen.parents
    found = jax.tree.map(lambda *parts: np.concatenate(parts), *passes)
    return found, decoded

  def _by_step_size(self, found: Predicted) -> dict:
    """Returns the number of new candidates by step size, JSON-like."""
    sizes = np.float32(self.config.step_sizes)
    new = (found.step_sizes[:, None] == sizes).sum(0)
    return {
      "step_sizes": [float(size) for size in self.config.step_sizes],
      "new_by_step_size": new.tolist(),
    }

  def _inspect(self, params, observed, unseen, predicted) -> dict:
    """Returns metrics of the controllers on held-out members, for reports."""
    tokens = observed.tokens
    decoded = metrics.reconstruct(
      ensemble.first(params), self._padded(tokens), controller=self.controller
    )
    return inspection(
      self.controller.space,
      tokens,
      observed.scores,
      decoded=np.asarray(decoded)[: len(tokens)],
      predicted=predicted,
      held_out=unseen,
    )

  def _unseen(self, params, tokens) -> tuple[np.ndarray, np.ndarray]:
    """Predicts each architecture by the controllers it is held out of.

    Returns:
      Which architectures are held out of one, bool [N], and the predictions,
      [N]; of all controllers for the others.
    """
    unseen = self._held_out(tokens).T
    own = unseen | ~unseen.any(axis=1, keepdims=True)
    predicted = np.mean(self.judged(params, tokens), axis=1, where=own)
    return unseen.any(axis=1), predicted

  @property
  def _quick(self) -> tuple[Proxy, ...]:
    return tuple(proxy for proxy in self.proxies if proxy.quick)

  def _correction(self, observed, unseen, predicted) -> Correction | None:
    """Fits the correction by the quick proxies to the held-out architectures.

    Args:
      observed: the observations.
      unseen: bool [N], see `_unseen`.
      predicted: [N].

    Returns:
      None without a quick proxy, if nothing was held out, or if a controller
      has diverged.
    """
    predicted = predicted[unseen]
    if not self._quick or not unseen.any() or not np.isfinite(predicted).all():
      return None
    return correction.fit(
      self.controller.space,
      self._quick,
      observed.tokens[unseen],
      predicted,
      _targets(observed)[unseen],
    )

  def _corrected(
    self, params, observed: Observations
  ) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function that predicts architectures [M, L]: [M, E]."""
    predict = functools.partial(self.judged, params)
    if not self._quick:
      return predict
    correct = self._correction(observed, *self._unseen(params, observed.tokens))
    if correct is None:
      return predict
    return lambda tokens: correct(predict(tokens), tokens)

  def _held_out(self, tokens) -> np.ndarray:
    """Returns the architectures held out of each controller, bool [E, N].

    Each architecture is held out of one controller, so that the ensemble is
    measured on all of them. A single controller learns from all, and so does
    one from which all would be held out, as may happen to a few architectures.
    """
    members = self.config.members
    own = folds.numbers(self.controller.space, tokens, members)
    hidden = (own == np.arange(members)[:, None]) & (members > 1)
    return hidden & ~hidden.all(axis=1, keepdims=True)

  def _shown(self, tokens) -> list[np.ndarray]:
    """Returns the rows that each controller learns from."""
    return [np.flatnonzero(~hidden) for hidden in self._held_out(tokens)]

  def _unlabelled(self, state) -> dict:
    """Returns how many random architectures each controller trained on."""
    drawn = int(state.steps) * self.config.unlabelled
    return {
      "unlabelled": drawn,
      # Each draw misses a sequence with probability 1 - 1 / sequences.
      "unlabelled_share": -math.expm1(-drawn / self.controller.space.sequences),
    }

  def _view(self, params, judged, members, proposed, parents, found) -> dict:
    """Returns predictions and a projection of the embeddings, for reports."""
    seeds, seed = np.unique(found.parents, return_inverse=True)
    rows = np.concatenate([members[seeds], proposed])
    own, predicted = np.split(judged(rows).mean(1), [len(seeds)])
    before = np.full(len(members), np.nan, np.float32)
    before[seeds] = own
    rows = np.concatenate([members, proposed])
    embedding = ensemble.place(
      ensemble.first(params), self._padded(rows), controller=self.controller
    )
    embedding = np.asarray(embedding)[: len(rows)]
    plane = project(embedding[: len(members)], embedding[len(members) :])
    return {
      "proposal_before": np.where(parents < 0, np.nan, before[parents]),
      "proposal_predicted": predicted,
      "candidate_step_size": found.step_sizes,
      "candidate_gain": found.predicted.mean(1) - own[seed],
      "member_plane": plane.members,
      "proposal_plane": plane.proposals,
      "plane_share": plane.share,
    }

  def _move(self, params, key, seeds, parents, observed):
    """Runs one pass; returns tokens [M, L], (parents [M], step sizes [M])."""
    # Seeds are repeated up to K, so that one program serves all passes.
    rows = np.resize(np.arange(len(seeds)), self.config.seeds)
    weights = observed.weights(key, len(rows))
    tokens = np.asarray(
      ensemble.move(params, seeds[rows], weights, **self._settings)
    )
    _, step, seed = np.unravel_index(
      np.arange(len(tokens)),
      (self.config.members, len(self.config.step_sizes), len(rows)),
    )
    origin = (
      parents[rows][seed].astype(np.int32),
      np.float32(self.config.step_sizes)[step],
    )
    return tokens, origin

  def judged(self, params: Params, tokens: np.ndarray) -> np.ndarray:
    """Returns the predictions of architectures int32 [M, L], [M, E].

    Args:
      params: parameters of the E controllers.
      tokens: the architectures.
    """
    rows = self._padded(tokens)
    found = ensemble.judge(params, rows, controller=self.controller)
    return np.asarray(found).T[: len(tokens)]

  def _padded(self, tokens) -> np.ndarray:
    """Pads rows to a power of 2, so that few programs are compiled."""
    size = max(_LEAST_JUDGED, 1 << (len(tokens) - 1).bit_length())
    return np.resize(tokens, (size, tokens.shape[1]))

  @property
  def _none(self) -> Predicted:
    """Empty candidates, with the shapes of a pass."""
    return Predicted(
      np.zeros((0, self.controller.space.length), np.int32),
      np.zeros((0, self.config.members), np.float32),
      np.zeros(0, np.int32),
      np.zeros(0, np.float32),
    )


def small(space: Space, estimates_cost: bool = False) -> NaoPlus:
  """Returns the strategy with controllers that few evaluations can fit."""
  sizes = ControllerConfig(
    embedding=32, hidden=32, mlp_layers=2, mlp_width=64, mlp_dropout=0.0
  )
  return NaoPlus(Controller(space, sizes, estimates_cost))


def _lessons(
  rng, observed: Observations, steps: int, trade_off: float, strategy: NaoPlus
):
  """Yields the lessons of `STEPS_A_CALL` steps at a time."""
  config, targets = strategy.config, _targets(observed)
  own_rows = strategy._shown(observed.tokens)
  costs = observed.costs()
  for start in range(0, steps, STEPS_A_CALL):
    number = np.arange(start, start + STEPS_A_CALL)
    shape = (len(number), config.labelled)
    rows = np.stack(
      [own[rng.integers(0, len(own), shape)] for own in own_rows], axis=1
    )
    # Falls to 0 in the second half; 0 beyond the last step.
    rates = np.clip(2 * (1 - number / steps), 0, 1) * config.learning_rate
    yield Lessons(
      observed.tokens[rows],
      targets[rows].astype(np.float32),
      rates.astype(np.float32),
      np.full(len(number), trade_off, np.float32),
      None if costs is None else costs[rows],
    )


def _targets(observed: Observations) -> np.ndarray:
  """Returns the ranks of the scores between 0 and 1, [N]."""
  last = max(len(observed.scores) - 1, 1)
  return (scipy.stats.rankdata(observed.scores) - 1) / last
