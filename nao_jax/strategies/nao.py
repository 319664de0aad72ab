"""Neural Architecture Optimization: fit, ascend, decode (paper algorithm 1).

Shapes: N architectures in the pool, L tokens, K seeds, S step sizes.
"""

from collections.abc import Callable
import dataclasses
from typing import ClassVar

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np

from nao_jax.controller import ascent, fit, metrics
from nao_jax.controller.fit import FitState
from nao_jax.controller.model import Controller, Params
from nao_jax.errors import UserError
from nao_jax.settings import field
from nao_jax.strategies import Observations, Proposal, folds
from nao_jax.strategies.controller_metrics import inspection
from nao_jax.strategies.projection import project

# Number of calls that a fit is split into, to show its progress.
FIT_CALLS = 10


@dataclasses.dataclass(frozen=True)
class NaoConfig:
  """Settings of the proposals; the defaults are the official ones (NAO_V1).

  Attributes:
    top_k: K, number of best members of the pool whose embeddings are moved.
    step_size: the smallest step; the other steps are its multiples.
    max_step_size: the largest step. The official limit is 50, but the official
      code compares before it increases the step, so 51 is its last step.
    held_out: share of all architectures that the controller never learns from,
      to measure how well it predicts; see folds.py.
  """

  # Name of these settings in those of a search.
  NAME: ClassVar[str] = "nao"

  top_k: int = field(100, least=1)
  step_size: int = field(1, least=1)
  max_step_size: int = field(51, least=1)
  held_out: float = field(0.0, least=0, below=1)

  def check_together(self) -> None:
    """Raises UserError if there is no step to take."""
    if self.step_size > self.max_step_size:
      raise UserError(
        f"`step_size={self.step_size}`: allowed: 1 to {self.max_step_size} "
        "(`max_step_size`)"
      )

  @property
  def step_sizes(self) -> jax.Array:
    """Step sizes of the ascent, float32 [S], ascending."""
    # A limit such as .3 is a multiple of .1 but for rounding.
    count = int(self.max_step_size / self.step_size + 1e-6)
    return jnp.float32(self.step_size * np.arange(1, count + 1))


@dataclasses.dataclass(frozen=True)
class Nao:
  """NAO's strategy; its state is that of the fit, at epoch 0 between rounds.

  Attributes:
    controller: space and sizes of the controller.
    fit: settings of the fit; each round starts from the parameters of the round
      before.
    config: settings of the proposals.
  """

  controller: Controller
  fit: fit.FitConfig
  config: NaoConfig

  def init(self, key: jax.Array) -> FitState:
    """Returns the state of a new controller; consumes the key."""
    return fit.start(self.controller.init(key), self.fit)

  def tell(
    self,
    state: FitState,
    key: jax.Array,
    observed: Observations,
    progress: Callable[[str, int, int], None],
    keep: Callable[[FitState, int], None],
  ) -> tuple[FitState, dict]:
    """Fits the controller on the pool without the held-out members.

    Implements `Strategy.tell`. A fit that diverges is replaced by a new
    controller. If all members would be held out, as may happen to a few
    finalists, none is.
    """
    examples = self.examples(observed)
    state = self.fitted(state, key, examples, progress, keep)
    return state, self.inspected(state.params, observed, examples.trains)

  def examples(self, observed: Observations) -> fit.Examples:
    """Returns the pool, its targets and the members to learn from."""
    held_out = folds.held_out(
      self.controller.space, observed.tokens, self.config.held_out
    )
    held_out &= not held_out.all()
    scores = np.float32(observed.scores)
    return fit.Examples(
      observed.tokens,
      fit.normalise_targets(scores, ~held_out),
      observed.costs(),
      ~held_out,
    )

  def ask(
    self, state: FitState, key: jax.Array, observed: Observations, limit: int
  ) -> tuple[FitState, Proposal]:
    """Moves the best members uphill and decodes them.

    Implements `Strategy.ask`. Proposals are in the official order: small steps
    first, then good seeds first.
    """
    best = observed.order[: self.config.top_k]
    seeds, parents = observed.tokens[best], best.astype(np.int32)
    return state, self.moved(state.params, key, seeds, parents, observed, limit)

  def moved(
    self,
    params: Params,
    key: jax.Array,
    seeds: np.ndarray,
    parents: np.ndarray,
    observed: Observations,
    limit: int,
  ) -> Proposal:
    """Moves seeds uphill, decodes them and takes new architectures.

    Args:
      params: parameters of the controller.
      key: consumed.
      seeds: int32 [K, L], best first.
      parents: int32 [K], their rows in the pool; -1 for those outside.
      observed: the observations of the search.
      limit: the most architectures to take.
    """
    step_sizes = self.config.step_sizes
    moved = ascent.propose(
      params,
      seeds,
      step_sizes,
      observed.weights(key, len(seeds)),
      controller=self.controller,
    )
    chosen = ascent.select(
      self.controller.space,
      np.asarray(moved.tokens),
      observed.known,
      limit,
      observed.allows,
    )
    step, seed = chosen.origins.T
    report = {
      "step_sizes": np.asarray(step_sizes).tolist(),
      "new_by_step_size": chosen.new.tolist(),
      "decoded": len(step_sizes) * len(seeds),
      "predicted_gain": float(jnp.mean(moved.after - moved.before)),
    }
    report |= _gains(moved, np.asarray(step_sizes), step, seed)
    report |= self._view(params, observed.tokens, chosen.tokens, limit)
    return Proposal(
      chosen.tokens, parents[seed], np.asarray(step_sizes)[step], report
    )

  def fitted(
    self,
    state: FitState,
    key: jax.Array,
    examples: fit.Examples,
    progress: Callable[[str, int, int], None],
    keep: Callable[[FitState, int], None],
  ) -> FitState:
    """Fits the controller to the examples, a part of the epochs at a time.

    See `Strategy.tell`; the state returned is at epoch 0.
    """
    epochs = self.fit.epochs
    calls = FIT_CALLS if epochs % FIT_CALLS == 0 else 1
    part = dataclasses.replace(self.fit, epochs=epochs // calls)
    if state.epoch == 0:  # Otherwise an interrupted fit is resumed.
      state = fit.start(state.params, part)
    progress("fit controller", int(state.epoch), epochs)
    while state.epoch < epochs:
      state, losses = fit.fit(
        state, key, examples, controller=self.controller, config=part
      )
      if not np.isfinite(losses.total).all():
        logging.warning(
          "the controller diverged in epoch %d; an untrained one proposes in "
          "this round; a smaller `fit.learning_rate` may help",
          np.argmin(np.isfinite(losses.total)) + state.epoch - part.epochs,
        )
        return self.init(key)
      keep(state, part.epochs)
      progress("fit controller", int(state.epoch), epochs)
    return state._replace(epoch=np.int32(0))

  def _view(self, params, members, proposed, limit) -> dict:
    """Returns a projection of the embeddings and predictions, for reports."""
    # Padded to the most proposals, so that one program serves all rounds.
    rows = np.resize(proposed, (limit, members.shape[1]))
    predicted, embedding = map(
      np.asarray,
      metrics.predict(
        params, np.concatenate([members, rows]), controller=self.controller
      ),
    )
    proposals = slice(len(members), len(members) + len(proposed))
    plane = project(embedding[: len(members)], embedding[proposals])
    return {
      "proposal_predicted": predicted[proposals],
      "member_plane": plane.members,
      "proposal_plane": plane.proposals,
      "plane_share": plane.share,
    }

  def inspected(
    self, params: Params, observed: Observations, trains: np.ndarray
  ) -> dict:
    """Returns the controller's metrics, its ranking of held-out members.

    Args:
      params: parameters of the controller.
      observed: the pool and its scores.
      trains: bool [N], the members that it was fitted to.
    """
    tokens = observed.tokens
    decoded = metrics.reconstruct(params, tokens, controller=self.controller)
    predicted, _ = metrics.predict(params, tokens, controller=self.controller)
    return inspection(
      self.controller.space,
      tokens,
      observed.scores,
      decoded=np.asarray(decoded),
      predicted=np.asarray(predicted),
      held_out=~trains,
    )


def _gains(moved: ascent.Proposals, step_sizes, step, seed) -> dict:
  """Returns predicted scores before and after the ascent, for reports."""
  before, after = np.asarray(moved.before), np.asarray(moved.after)
  return {
    "candidate_step_size": np.repeat(step_sizes, len(before)),
    "candidate_gain": (after - before).ravel(),
    "proposal_before": before[seed],
    "proposal_after": after[step, seed],
  }
