"""Proxies: numbers that are known of an architecture before any training.

A proxy is a pure function of tokens: a cost, such as `CostConstraint.costs`, or
the user's own. `first_pool` chooses with them the architectures that a search
starts from; pass these to `loop.run` as `given`.

Shapes: N architectures, L tokens, P proxies.
"""

from collections.abc import Callable, Sequence, Set
import dataclasses

from absl import logging
import jax
import numpy as np
import numpy.typing as npt
import scipy

from nao_jax.errors import UserError
from nao_jax.objectives import CostConstraint
from nao_jax.runs.environment import of_the_caller
from nao_jax.spaces.space import Space
from nao_jax.strategies.uniform import sample_new


@dataclasses.dataclass(frozen=True, eq=False)
class Proxy:
  """A named signal.

  Attributes:
    name: name of the signal in messages.
    function: maps tokens int32 [N, L] of `Space.plain` to numbers [N], higher
      for architectures that promise a higher score; pure.
    quick: whether thousands of architectures take no time to speak of, so that
      all candidates of a search can be judged by it.
  """

  name: str
  function: Callable[[np.ndarray], npt.ArrayLike]
  quick: bool = True

  def values(self, space: Space, tokens: np.ndarray) -> np.ndarray:
    """Returns the signal of architectures int32 [N, L], float64 [N].

    Raises:
      UserError: there is not one finite number for each architecture.
    """
    with of_the_caller():
      values = np.asarray(self.function(space.to_plain(tokens)), np.float64)
    if values.shape != (len(tokens),):
      raise UserError(
        f"the proxy {self.name!r} gave an array {list(values.shape)} for "
        f"{len(tokens)} architectures; it must give one number for each"
      )
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
      raise UserError(
        f"the proxy {self.name!r} of architecture {bad[0] + 1} of "
        f"{len(tokens)}, {tokens[bad[0]].tolist()}, is {values[bad[0]]}; "
        "allowed: finite numbers"
      )
    return values

  def ranks(self, space: Space, tokens: np.ndarray) -> np.ndarray:
    """Returns the ranks of architectures int32 [N, L], from 1 on, float64 [N].

    Raises:
      UserError: as `values`; or all numbers are equal, although the
        architectures differ.
    """
    values = self.values(space, tokens)
    if len(values) > 1 and np.ptp(values) == 0:
      raise UserError(
        f"the proxy {self.name!r} is {values[0]:g} for each of {len(tokens)} "
        "architectures, which tells none from another; leave it out"
      )
    return scipy.stats.rankdata(values)


def mean_ranks(
  space: Space,
  tokens: np.ndarray,
  scores: np.ndarray,
  proxies: Sequence[Proxy],
) -> np.ndarray:
  """Ranks architectures by their scores and all proxies alike.

  Short trainings favour small architectures, and others are too noisy to tell
  good ones apart; the number of parameters, for example, makes up for it.

  Args:
    space: the search space.
    tokens: int32 [N, L].
    scores: scores [N].
    proxies: the signals; without any the ranks are those of the scores.

  Returns:
    Means of the ranks by score and by each proxy, from 1 on, divided by N,
    float64 [N]; equal values share the mean of their ranks.

  Raises:
    UserError: a proxy gives no usable numbers.
  """
  rows = [scores, *(proxy.values(space, tokens) for proxy in proxies)]
  return scipy.stats.rankdata(rows, axis=1).mean(0) / len(tokens)


def first_pool(
  space: Space,
  key: jax.Array,
  count: int,
  proxies: Sequence[Proxy],
  *,
  draws: int = 10,
  known: Set[bytes] = frozenset(),
  constraint: CostConstraint | None = None,
) -> np.ndarray:
  """Chooses architectures by their mean rank over the proxies.

  The log names the proxies. No score is used, and nothing is trained.

  Args:
    space: the search space.
    key: consumed.
    count: number of architectures to choose.
    proxies: the signals, at least one.
    draws: number of random architectures to choose from for each that is
      chosen.
    known: `space.keys` of architectures not to choose.
    constraint: cost constraint that the architectures must satisfy.

  Returns:
    int32 [count, L], all different, best first; fewer if the space has fewer.

  Raises:
    UserError: there is no proxy, or one gives no usable numbers.
  """
  if not proxies:
    raise UserError("`proxies`: none is given; allowed: one or more")
  tokens = sample_new(space, key, draws * count, known, constraint)
  ranks = [proxy.ranks(space, tokens) for proxy in proxies]
  best = np.argsort(-np.mean(ranks, axis=0), kind="stable")[:count]
  logging.info(
    "first pool: %d of %d random architectures, chosen by %s",
    len(best),
    len(tokens),
    ", ".join(proxy.name for proxy in proxies),
  )
  return tokens[best]
