"""How fast the parts of a search are on this machine.

python -m benchmarks.throughput [--only=supernet_train,propose] [--json=FILE]

Every figure is the median of repeated calls after one warm-up, with the
fastest and the slowest beside it; compile seconds are the warm-up's. Inputs
are random: speed does not depend on them, except on the architectures, which
are drawn anew for every step.
"""

from collections.abc import Callable
import functools
import json
import statistics
import time
from typing import NamedTuple

from absl import flags
import jax
import jax.numpy as jnp
import numpy as np
import rich.console
import rich.table

from experiments import driver
from nao_jax.controller import ascent, fit
from nao_jax.controller.model import Controller
from nao_jax.data.augment import AugmentConfig
from nao_jax.errors import UserError
from nao_jax.networks.macro import NetworkConfig
from nao_jax.spaces import cnn
from nao_jax.training.optimisers import SgdConfig
from nao_jax.training.recipe import Images, TrainConfig
from nao_jax.training.supernet import Trainer, score, train_steps

_ONLY = flags.DEFINE_list("only", None, "Names to measure; all by default.")
_JSON = flags.DEFINE_string("json", None, "File to write the figures to.")
_REPEATS = flags.DEFINE_integer("repeats", 20, "Counted calls.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", 32, "Images a step.", lower_bound=1)
_CHANNELS = flags.DEFINE_integer("channels", 20, "Of the supernet.")
_CELLS = flags.DEFINE_integer("cells_per_stage", 3, "Of the supernet.")


class Work(NamedTuple):
  """Something to time.

  Attributes:
    call: runs it once; takes the number of the call.
    amount: units of work in a call.
    unit: of the work.
  """

  call: Callable[[int], object]
  amount: int
  unit: str


def _supernet():
  trainer = Trainer(
    NetworkConfig(channels=_CHANNELS.value, cells_per_stage=_CELLS.value),
    TrainConfig(batch=_BATCH.value),
    SgdConfig(),
    AugmentConfig(),
    examples=50_000,
  )
  random = np.random.RandomState(0)
  data = Images(
    jnp.asarray(random.randint(0, 256, (512, 32, 32, 3), np.uint8)),
    jnp.asarray(random.randint(0, 10, 512, np.int32)),
    jnp.full(3, 0.5),
    jnp.full(3, 0.25),
  )
  pool = cnn.to_cells(cnn.space().sample(jax.random.key(0), 64))
  return trainer, data, pool, trainer.init(jax.random.key(1), data)


def supernet_train() -> Work:
  """One step: augment, forward, backward, update."""
  trainer, data, pool, state = _supernet()
  step = jax.jit(
    functools.partial(train_steps, trainer=trainer), donate_argnums=0
  )
  indices = jnp.arange(_BATCH.value)[None]
  key = jax.random.key(2)

  def call(i):
    nonlocal state
    member = pool[i % len(pool)][None]
    state, loss = step(state, key, data, member, indices)
    return loss

  return Work(call, _BATCH.value, "images")


def supernet_score() -> Work:
  """One architecture on one batch."""
  trainer, data, pool, state = _supernet()
  run = jax.jit(functools.partial(score, network=trainer.network))
  indices = jnp.arange(_BATCH.value)[None]
  counted = jnp.ones_like(indices, bool)

  def call(i):
    member = pool[i % len(pool)][None]
    return run(state.params, member, data, indices, counted)

  return Work(call, _BATCH.value, "images")


def controller_fit() -> Work:
  """One epoch on 600 architectures at the official size, batch 100."""
  controller = Controller(cnn.space())
  config = fit.FitConfig(epochs=1)
  params = controller.init(jax.random.key(0))
  tokens = controller.space.sample(jax.random.key(1), 600)
  targets = jnp.linspace(0, 1, 600)
  state = fit.start(params, config)

  def call(_):
    nonlocal state
    state, losses = fit.fit(
      state,
      jax.random.key(2),
      tokens,
      targets,
      controller=controller,
      config=config,
    )
    return losses

  return Work(call, 600, "sequences")


def propose() -> Work:
  """100 seeds x 10 step sizes: encode, gradient, decode."""
  controller = Controller(cnn.space())
  params = controller.init(jax.random.key(0))
  seeds = controller.space.sample(jax.random.key(1), 100)
  steps = jnp.arange(1.0, 11.0)

  def call(_):
    return ascent.propose(params, seeds, steps, controller=controller)

  return Work(call, 1000, "candidates")


NAMES = {
  work.__name__: work
  for work in (supernet_train, supernet_score, controller_fit, propose)
}


def measure(work: Work, repeats: int) -> dict:
  """Times a warm-up and `repeats` calls."""
  warm_up, *seconds = (_seconds(work.call, i) for i in range(repeats + 1))
  median = statistics.median(seconds)
  return {
    "seconds": median,
    "fastest": min(seconds),
    "slowest": max(seconds),
    "warm_up": warm_up,
    "rate": work.amount / median,
    "unit": work.unit,
  }


def _seconds(call, i: int) -> float:
  start = time.perf_counter()
  jax.block_until_ready(call(i))
  return time.perf_counter() - start


def main(_):
  """Measures, prints a table, writes JSON."""
  names = _ONLY.value or list(NAMES)
  for name in names:
    if name not in NAMES:
      raise UserError(f"--only={name}: unknown; allowed: {', '.join(NAMES)}")
  table = rich.table.Table(title=f"{jax.local_device_count()} device(s)")
  for heading in ("work", "ms", "fastest", "slowest", "warm-up s", "rate"):
    table.add_column(heading, justify="right")
  figures = {}
  for name in names:
    figures[name] = found = measure(NAMES[name](), _REPEATS.value)
    table.add_row(
      name,
      *(f"{1e3 * found[x]:.1f}" for x in ("seconds", "fastest", "slowest")),
      f"{found['warm_up']:.1f}",
      f"{found['rate']:.0f} {found['unit']}/s",
    )
  rich.console.Console().print(table)
  if _JSON.value:
    with open(_JSON.value, "w", encoding="utf-8") as file:
      json.dump(figures, file, indent=2)


if __name__ == "__main__":
  driver.run(main)
