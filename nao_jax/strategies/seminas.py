"""SemiNAS: NAO that also learns from its own predictions (Luo et al. 2020).

Each round fits the controller on the scored architectures, predicts scores of
random architectures (pseudo-labels), fits it on both, and moves the best of
both along the predictor's gradient (arXiv 2002.10389). The controller goes on
from round to round.

Targets are scaled to the pool's range as in NAO, because the mean and deviation
that the authors subtract and divide by are those of one benchmark.

Shapes: N architectures in the pool, M random ones, L tokens.
"""

from collections.abc import Callable
import dataclasses
from typing import ClassVar, NamedTuple

import jax
import numpy as np

from nao_jax.controller import metrics
from nao_jax.controller.fit import Examples, FitConfig, FitState
from nao_jax.controller.model import Controller
from nao_jax.settings import field
from nao_jax.strategies import Observations, Proposal
from nao_jax.strategies.candidates import first_new
from nao_jax.strategies.nao import Nao, NaoConfig


@dataclasses.dataclass(frozen=True)
class SemiNasConfig(NaoConfig):
  """Settings of the pseudo-labels and the proposals; defaults are official.

  Attributes:
    top_k: number of architectures whose embeddings are moved: the best of the
      pool and of the random ones, by scores and predictions.
    step_size: the smallest step; the other steps are its multiples.
    max_step_size: the largest step.
    held_out: see `NaoConfig`.
    unlabelled: M, number of random architectures with predicted scores.
    epochs: passes of the second fit of a round, over the pool and the random
      architectures; `fit.epochs` are those of the first, over the pool alone.
    repeats: how often a pass of the second fit takes each member of the pool.
  """

  NAME: ClassVar[str] = "semi"

  step_size: float = field(1.0, above=0)
  max_step_size: float = field(100.0, above=0)
  unlabelled: int = field(10_000, least=1)
  epochs: int = field(1000, least=1)
  repeats: int = field(100, least=1)


class SemiState(NamedTuple):
  """State of the strategy.

  Attributes:
    fit: state of the fit of a round; at epoch 0 before the first and the second
      fit and between rounds.
    tokens: int32 [M, L], the random architectures of the round.
    targets: float32 [M], their predicted scores.
    labelled: bool [], whether the first fit of the round is done, and they are
      predicted.
  """

  fit: FitState
  tokens: np.ndarray
  targets: np.ndarray
  labelled: np.ndarray


@dataclasses.dataclass(frozen=True)
class SemiNas:
  """SemiNAS's strategy; its state is a `SemiState`.

  Attributes:
    controller: space and sizes of the controller; the authors' are
      `controller.model.SEMI`.
    fit: settings of both fits, and the epochs of the first.
    config: settings of the pseudo-labels and the proposals.
  """

  controller: Controller
  fit: FitConfig
  config: SemiNasConfig

  def init(self, key: jax.Array) -> SemiState:
    """Returns the state of a new controller; consumes the key."""
    shape = (self.config.unlabelled, self.controller.space.length)
    return SemiState(
      self._nao(self.fit.epochs).init(key),
      np.zeros(shape, np.int32),
      np.zeros(shape[0], np.float32),
      np.bool_(False),
    )

  def tell(
    self,
    state: SemiState,
    key: jax.Array,
    observed: Observations,
    progress: Callable[[str, int, int], None],
    keep: Callable[[SemiState, int], None],
  ) -> tuple[SemiState, dict]:
    """Fits on the pool, predicts random architectures, fits on both.

    Implements `Strategy.tell`.
    """
    first, second, draw = jax.random.split(key, 3)
    pool = self._nao(self.fit.epochs).examples(observed)

    def fitted(state, epochs, key, examples):
      new = self._nao(epochs).fitted(
        state.fit,
        key,
        examples,
        progress,
        lambda part, done: keep(state._replace(fit=part), done),
      )
      return state._replace(fit=new)

    if not state.labelled:
      state = fitted(state, self.fit.epochs, first, pool)
      state = self._predicted(state, draw)
    both = self._both(pool, state, observed)
    state = fitted(state, self.config.epochs, second, both)
    found = self._nao(self.config.epochs).inspected(
      state.fit.params, observed, pool.trains
    )
    found["unlabelled"] = len(state.tokens)
    return state._replace(labelled=np.bool_(False)), found

  def ask(
    self, state: SemiState, key: jax.Array, observed: Observations, limit: int
  ) -> tuple[SemiState, Proposal]:
    """Moves the best of both uphill and decodes them.

    Implements `Strategy.ask`. Proposals are in the order of NAO's.
    """
    seeds, parents = self.seeds(state, observed)
    nao = self._nao(self.config.epochs)
    return state, nao.moved(
      state.fit.params, key, seeds, parents, observed, limit
    )

  def seeds(
    self, state: SemiState, observed: Observations
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns the seeds, best first: int32 [K, L], and their rows in the pool.

    Random architectures compete by their predicted scores, and have row -1.
    """
    space = self.controller.space
    members = self._nao(self.fit.epochs).examples(observed).targets
    pool = set(space.keys(observed.tokens))
    rows = first_new(space, state.tokens, pool)
    rows = rows[observed.allows(state.tokens[rows])]
    both = observed._replace(
      tokens=np.concatenate([observed.tokens, state.tokens[rows]]),
      scores=np.concatenate([members, state.targets[rows]]),
    )
    best = both.order[: self.config.top_k]
    parents = np.where(best < len(observed.tokens), best, -1)
    return both.tokens[best], parents.astype(np.int32)

  def _predicted(self, state: SemiState, key: jax.Array) -> SemiState:
    """Draws random architectures and predicts their scores."""
    tokens = np.asarray(
      self.controller.space.sample(key, self.config.unlabelled)
    )
    targets, _ = metrics.predict(
      state.fit.params, tokens, controller=self.controller
    )
    return SemiState(state.fit, tokens, np.asarray(targets), np.bool_(True))

  def _both(
    self, pool: Examples, state: SemiState, observed: Observations
  ) -> Examples:
    """Returns the examples of the second fit."""
    repeats, costs = self.config.repeats, None
    if pool.costs is not None:
      own = observed.constraint.scaled(state.tokens, observed.tokens)
      # Costs that are not known are huge, and would be all that is learnt.
      own = np.clip(own, -1, 2)
      costs = np.concatenate([np.repeat(pool.costs, repeats), np.float32(own)])
    return Examples(
      np.concatenate([np.repeat(pool.tokens, repeats, 0), state.tokens]),
      np.concatenate([np.repeat(pool.targets, repeats), state.targets]),
      costs,
      np.pad(
        np.repeat(pool.trains, repeats),
        (0, len(state.tokens)),
        constant_values=True,
      ),
    )

  def _nao(self, epochs: int) -> Nao:
    """Returns NAO, whose fit and ascent SemiNAS shares."""
    fit = dataclasses.replace(self.fit, epochs=epochs)
    return Nao(self.controller, fit, self.config)
