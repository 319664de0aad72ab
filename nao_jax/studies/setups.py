"""Strategies with the sizes that a comparison gives them."""

from collections.abc import Callable
import dataclasses

from nao_jax.controller.fit import FitConfig
from nao_jax.controller.model import SEMI, Controller, ControllerConfig
from nao_jax.objectives import CostConstraint
from nao_jax.search.loop import SearchConfig
from nao_jax.settings import flatten, validate
from nao_jax.spaces.space import Space
from nao_jax.strategies import Strategy, nao_plus
from nao_jax.strategies.ensemble import NaoPlusConfig
from nao_jax.strategies.evolution import Evolution
from nao_jax.strategies.local import Local
from nao_jax.strategies.nao import Nao, NaoConfig
from nao_jax.strategies.nao_plus import NaoPlus
from nao_jax.strategies.proxies import Proxy
from nao_jax.strategies.seminas import SemiNas, SemiNasConfig
from nao_jax.strategies.uniform import Uniform

# Evaluations before the first proposal, unless a strategy needs more.
FIRST = 10
# `plus.exploration` of a comparison with proxies.
EXPLORATION = 0.5
PLUS = NaoPlusConfig()


@dataclasses.dataclass(frozen=True)
class Setup:
  """A strategy and the sizes of its search.

  Attributes:
    strategy: the strategy.
    pool: number of random architectures that it starts with.
    batch: number of proposals in a round.
  """

  strategy: Strategy
  pool: int = FIRST
  batch: int = 1

  def search(self, budget: int) -> SearchConfig:
    """Returns the sizes of a search with this number of evaluations."""
    pool = min(self.pool, budget)
    return SearchConfig(
      pool_size=pool,
      rounds=-(-(budget - pool) // self.batch),
      new_per_round=self.batch,
      extend=True,
    )


def _nao(space: Space) -> Setup:
  """Sets up NAO as published, but at a size that allows a hundred trials."""
  controller = Controller(space, ControllerConfig(mlp_dropout=0.0))
  strategy = Nao(
    controller,
    FitConfig(epochs=200, batch=100),
    NaoConfig(top_k=50, max_step_size=50, held_out=0.1),
  )
  return Setup(strategy, pool=50, batch=50)


def _seminas(space: Space) -> Setup:
  """Sets up SemiNAS with its controller, but shorter fits than published."""
  strategy = SemiNas(
    Controller(space, SEMI),
    FitConfig(epochs=500, batch=100),
    SemiNasConfig(
      top_k=50, max_step_size=50.0, unlabelled=500, epochs=50, repeats=10
    ),
  )
  return Setup(strategy, pool=50, batch=50)


SETUPS: dict[str, Callable[[Space], Setup]] = {
  "nao": _nao,
  "nao_plus": lambda space: Setup(nao_plus.small(space)),
  "seminas": _seminas,
  "random": lambda space: Setup(Uniform(space)),
  "evolution": lambda space: Setup(Evolution(space), pool=20),
  "local": lambda space: Setup(Local(space)),
}


def setup(
  name: str,
  space: Space,
  constraint: CostConstraint | None,
  signals: tuple[Proxy, ...] = (),
  plus: NaoPlusConfig | None = None,
) -> Setup:
  """Returns a strategy by name.

  Args:
    name: a key of `SETUPS`.
    space: the search space.
    constraint: the cost constraint; controllers estimate its costs if these
      guide the ascent.
    signals: what `nao_plus` corrects its predictions by.
    plus: settings of `nao_plus`; by default it explores if there are signals.
  """
  made = SETUPS[name](space)
  strategy = made.strategy
  if isinstance(strategy, NaoPlus):
    explored = EXPLORATION if signals else PLUS.exploration
    plus = plus or dataclasses.replace(PLUS, exploration=explored)
    validate(plus)
    strategy = dataclasses.replace(strategy, config=plus, proxies=signals)
  controller = getattr(strategy, "controller", None)
  if (
    controller is not None
    and constraint is not None
    and constraint.uses_cost_gradient
  ):
    controller = dataclasses.replace(controller, estimates_cost=True)
    strategy = dataclasses.replace(strategy, controller=controller)
  return dataclasses.replace(made, strategy=strategy)


def described(setup: Setup) -> dict:
  """Describes the settings that determine a strategy's trials, JSON-like."""
  described = {"pool": setup.pool, "batch": setup.batch}
  for own in dataclasses.fields(setup.strategy):
    value = getattr(setup.strategy, own.name)
    if isinstance(value, Controller):
      described["controller"] = flatten(value.config)
    # Proxies are in the settings of the comparison.
    elif not isinstance(value, Space) and own.name != "proxies":
      described[own.name] = (
        flatten(value) if dataclasses.is_dataclass(value) else value
      )
  return described
