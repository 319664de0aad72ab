"""Neural Architecture Optimization (Luo et al., NeurIPS 2018) in JAX.

A controller embeds architectures, predicts their scores, moves embeddings along
the predictor's gradient and decodes them to better architectures.

Search a space of your own with a function that scores:

    import jax
    import nao_jax

    space = nao_jax.make_space("net", {"width": (16, 32), "depth": (1, 2, 3)})
    sizes = nao_jax.SearchConfig(pool_size=4, rounds=1, new_per_round=1)
    pool = nao_jax.run_search(space, score, jax.random.key(0), sizes)
    space.read(pool.tokens[pool.best])

`score` takes tokens int32 [N, L] and returns scores [N]; higher is better.

Search for convolutional or recurrent cells, with the published settings:

    config = nao_jax.IMAGE_PRESETS["digits"]
    task = nao_jax.Images(data_dir="data")
    nao_jax.run_experiment(task, config, workdir="runs/digits")

Spaces and costs
    Space           a token grammar of architectures
    make_space      makes a space from named slots with choices
    CostConstraint  a limit on a cost, or a cost as a second objective

Searches
    run_search      searches a space with an evaluator or a function
    SearchConfig    sizes of a search
    Pool            architectures with their scores and origins
    Function        a function that scores, in batches of one size
    Evaluator       interface of scores with a state, such as shared weights
    Nao, NaoPlus, Evolution, LocalSearch, RandomSearch
                    strategies: they learn from scores and propose

Experiments
    run_experiment  a search, its finalists and a comparison with random cells
    run_training    a final training of one architecture
    Images, Texts   the tasks that ship
    IMAGE_PRESETS, TEXT_PRESETS
                    settings of searches, by name

Errors
    UserError       something the user can mend; it says where and how
    Stopped         a signal stopped a run; the same call resumes it

Names load when they are first used, so that the import takes no time and
touches no device. The packages (`nao_jax.controller`, `nao_jax.networks`, ..)
hold the rest.
"""

import importlib
from typing import TYPE_CHECKING, Any
import warnings

from nao_jax import lazy

if TYPE_CHECKING:
  from nao_jax.errors import Stopped, UserError
  from nao_jax.evaluators import Evaluator
  from nao_jax.evaluators.function import Function
  from nao_jax.experiment import run as run_experiment
  from nao_jax.final_training import run as run_training
  from nao_jax.objectives import CostConstraint
  from nao_jax.pool import Pool
  from nao_jax.search.config import SearchConfig
  from nao_jax.search.loop import run as run_search
  from nao_jax.spaces.slots import space as make_space
  from nao_jax.spaces.space import Space
  from nao_jax.strategies.evolution import Evolution
  from nao_jax.strategies.local import Local as LocalSearch
  from nao_jax.strategies.nao import Nao
  from nao_jax.strategies.nao_plus import NaoPlus
  from nao_jax.strategies.uniform import Uniform as RandomSearch
  from nao_jax.tasks.image_presets import PRESETS as IMAGE_PRESETS
  from nao_jax.tasks.images import Images
  from nao_jax.tasks.text_presets import PRESETS as TEXT_PRESETS
  from nao_jax.tasks.texts import Texts

# Semantic versioning (semver.org) of what `__all__` names and its documented
# members. setup.cfg reads it here.
__version__ = "0.2.0"

# {name: where it is}; a test compares it with the imports above.
_NAMES = {
  "CostConstraint": "objectives.CostConstraint",
  "Evaluator": "evaluators.Evaluator",
  "Evolution": "strategies.evolution.Evolution",
  "Function": "evaluators.function.Function",
  "IMAGE_PRESETS": "tasks.image_presets.PRESETS",
  "Images": "tasks.images.Images",
  "LocalSearch": "strategies.local.Local",
  "Nao": "strategies.nao.Nao",
  "NaoPlus": "strategies.nao_plus.NaoPlus",
  "Pool": "pool.Pool",
  "RandomSearch": "strategies.uniform.Uniform",
  "SearchConfig": "search.config.SearchConfig",
  "Space": "spaces.space.Space",
  "Stopped": "errors.Stopped",
  "TEXT_PRESETS": "tasks.text_presets.PRESETS",
  "Texts": "tasks.texts.Texts",
  "UserError": "errors.UserError",
  "make_space": "spaces.slots.space",
  "run_experiment": "experiment.run",
  "run_search": "search.loop.run",
  "run_training": "final_training.run",
}

__all__ = [
  "IMAGE_PRESETS",
  "TEXT_PRESETS",
  "CostConstraint",
  "Evaluator",
  "Evolution",
  "Function",
  "Images",
  "LocalSearch",
  "Nao",
  "NaoPlus",
  "Pool",
  "RandomSearch",
  "SearchConfig",
  "Space",
  "Stopped",
  "Texts",
  "UserError",
  "make_space",
  "run_experiment",
  "run_search",
  "run_training",
]

# Names of modules in 0.1, which still work from here.
_MOVED = {
  "cnn_costs": "tasks.image_costs",
  "cnn_use": "tasks.image_inference",
  "comparison": "studies.comparison",
  "controller_study": "studies.controller_study",
  "journal": "search.journal",
  "measures": "metrics",
  "outcome": "search.finals",
  "pool_file": "search.pool_file",
  "presets": "tasks.image_presets",
  "recipes": "tasks.image_recipes",
  "rnn_presets": "tasks.text_presets",
  "search_state": "search.state",
}

# Modules of 0.1 whose `run` is another call today; see earlier.py.
_CALLS = {
  "cnn_search": "run_experiment(nao_jax.Images(data_dir), config, workdir=..)",
  "cnn_training": "run_training(nao_jax.Images(data_dir), config, workdir=..)",
  "rnn_search": "run_experiment(nao_jax.Texts(), config, workdir=..)",
  "rnn_training": "run_training(nao_jax.Texts(), config, workdir=..)",
}

_load, __dir__ = lazy.submodules(__name__, __path__)


def __getattr__(name: str) -> Any:
  """Loads a name or a module when it is first used."""
  if name in _NAMES:
    module, _, own = f"{__name__}.{_NAMES[name]}".rpartition(".")
    return getattr(importlib.import_module(module), own)
  if name in _CALLS:
    warnings.warn(
      f"nao_jax.{name}.run is now nao_jax.{_CALLS[name]}",
      DeprecationWarning,
      stacklevel=2,
    )
    earlier = importlib.import_module(f"{__name__}.earlier")
    return earlier.module(name)
  if name not in _MOVED:
    return _load(name)
  new = f"{__name__}.{_MOVED[name]}"
  warnings.warn(
    f"nao_jax.{name} is now {new}", DeprecationWarning, stacklevel=2
  )
  return importlib.import_module(new)
