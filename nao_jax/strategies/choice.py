"""The strategies by name."""

from typing import Any

from nao_jax.controller.model import Controller
from nao_jax.spaces.space import Space
from nao_jax.strategies import Strategy
from nao_jax.strategies.evolution import Evolution
from nao_jax.strategies.local import Local
from nao_jax.strategies.nao import Nao
from nao_jax.strategies.nao_plus import NaoPlus
from nao_jax.strategies.proxies import Proxy
from nao_jax.strategies.seminas import SemiNas
from nao_jax.strategies.uniform import Uniform

STRATEGIES = ("nao", "nao_plus", "seminas", "random", "evolution", "local")
# Those with a controller.
WITH_CONTROLLER = ("nao", "nao_plus", "seminas")
# Strategies that need all architectures that were ever scored, or their age.
NEED_ALL = ("evolution", "local")


def strategy(
  config: Any,
  space: Space,
  estimates_cost: bool = False,
  proxies: tuple[Proxy, ...] = (),
) -> Strategy:
  """Makes the strategy that the settings of a search name.

  Args:
    config: settings with the fields `strategy`, `controller`, `fit`, `nao`,
      `plus` and `semi`.
    space: the search space.
    estimates_cost: whether the controller estimates costs; see
      `CostConstraint.uses_cost_gradient`.
    proxies: signals, which `nao_plus` learns to use.
  """
  controller = Controller(space, config.controller, estimates_cost)
  strategies = {
    "nao": Nao(controller, config.fit, config.nao),
    "nao_plus": NaoPlus(controller, config.plus, proxies),
    "seminas": SemiNas(controller, config.fit, config.semi),
    "random": Uniform(space),
    "evolution": Evolution(space),
    "local": Local(space),
  }
  return strategies[config.strategy]
