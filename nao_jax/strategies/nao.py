"""Neural Architecture Optimization: fit, ascend, decode (paper algorithm 1).

Shapes: N architectures in the pool, L tokens, K seeds, S step sizes.
"""

from collections.abc import Callable
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from nao_jax.controller import ascent, fit, metrics
from nao_jax.controller.model import Controller, Params
from nao_jax.strategies import Proposal, Seen

# Parts that a fit is cut into, to show how far it is.
FIT_CALLS = 10


@dataclasses.dataclass(frozen=True)
class NaoConfig:
  """How proposals are made; the defaults are the official search's.

  Attributes:
    top_k: K, best members of the pool whose embeddings are moved.
    step_size: the smallest step; the others are its multiples.
    max_step_size: the largest step.
    held_out: share of the pool that the controller does not see, to measure
      how well it predicts.
  """

  top_k: int = 100
  step_size: int = 1
  max_step_size: int = 50
  held_out: float = 0.1

  @property
  def step_sizes(self) -> jax.Array:
    """float32 [S], ascending."""
    step = self.step_size
    return jnp.arange(step, self.max_step_size + 1, step, dtype=jnp.float32)


@dataclasses.dataclass(frozen=True)
class Nao:
  """The strategy; its state is the controller's parameters.

  Attributes:
    controller: space and sizes.
    fit: how to fit it, in every round on from the round before.
    config: how to propose.
  """

  controller: Controller
  fit: fit.FitConfig
  config: NaoConfig

  def init(self, key: jax.Array) -> Params:
    """A fresh controller; consumes the key."""
    return self.controller.init(key)

  def tell(
    self,
    state: Params,
    key: jax.Array,
    seen: Seen,
    progress: Callable[[str, int, int], None],
  ) -> tuple[Params, dict]:
    """Fits the controller on the pool, but for the members held out."""
    split_key, fit_key = jax.random.split(key)
    train, held_out = map(
      np.asarray,
      fit.split(split_key, len(seen.tokens), self.config.held_out),
    )
    params = self._fit(
      state, fit_key, seen.tokens[train], seen.scores[train], progress
    )
    return params, self._inspect(params, seen.tokens, seen.scores, held_out)

  def ask(
    self, state: Params, key: jax.Array, seen: Seen, limit: int
  ) -> tuple[Params, Proposal]:
    """Moves the best members uphill and decodes them.

    They come in the official order: small steps first, then good seeds first.
    """
    del key  # Nothing is left to chance.
    best = np.argsort(-seen.scores, kind="stable")[: self.config.top_k]
    step_sizes = self.config.step_sizes
    moved = ascent.propose(
      state, seen.tokens[best], step_sizes, controller=self.controller
    )
    space = self.controller.space
    chosen = ascent.select(space, np.asarray(moved.tokens), seen.known, limit)
    step, seed = chosen.origins.T
    report = {
      "step_sizes": np.asarray(step_sizes).tolist(),
      "new_by_step_size": chosen.new.tolist(),
      "predicted_gain": float(jnp.mean(moved.after - moved.before)),
    }
    return state, Proposal(
      chosen.tokens,
      best[seed].astype(np.int32),
      np.asarray(step_sizes)[step],
      report,
    )

  def _fit(self, params, key, tokens, scores, progress) -> Params:
    targets = fit.normalise_targets(scores.astype(np.float32))
    calls = FIT_CALLS if self.fit.epochs % FIT_CALLS == 0 else 1
    part = dataclasses.replace(self.fit, epochs=self.fit.epochs // calls)
    state = fit.start(params, part)
    progress("fit controller", 0, calls)
    for call in range(calls):
      state, _ = fit.fit(
        state, key, tokens, targets, controller=self.controller, config=part
      )
      jax.block_until_ready(state.epoch)
      progress("fit controller", call + 1, calls)
    return state.params

  def _inspect(self, params, tokens, scores, held_out) -> dict:
    """The controller's quality: ranking where it was not fitted."""
    decoded = metrics.reconstruct(params, tokens, controller=self.controller)
    rebuilt = metrics.reconstruction(self.controller.space, tokens, decoded)
    _, embedding = self.controller.encode(params, tokens)
    predicted = np.asarray(self.controller.predict(params, embedding))
    order = metrics.ranking(predicted[held_out], scores[held_out])
    return {
      "held_out": len(held_out),
      "pairwise_accuracy": order.pairwise,
      "kendall_tau": order.kendall,
      "spearman": order.spearman,
      "exact_reconstruction": rebuilt.exact,
      # Swaps in training never show an architecture as it is written, so its
      # twin is as good an answer.
      "equivalent_reconstruction": rebuilt.equivalent,
    }
