"""A training step of the widest published network, as a piece of work."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import counting, memory, work
from benchmarks.counting import Needed
from nao_jax.networks.cost import cost
from nao_jax.tasks import image_recipes
from nao_jax.training import stand_alone


def published_train(sizes: work.Sizes) -> work.Work:
  """Builds a training step of the network of recipe `naonet_a_128_cifar10`."""
  config = image_recipes.RECIPES["naonet_a_128_cifar10"]
  vision = work.vision_of(sizes)
  network = dataclasses.replace(
    config.network,
    channels=sizes.published_channels,
    cells_per_stage=sizes.published_cells,
  )
  train = dataclasses.replace(config.train, batch=sizes.batch)
  trainer = memory.trainer(
    dataclasses.replace(config, network=network, train=train),
    bfloat16=sizes.bfloat16,
  )
  state = trainer.init(jax.random.key(1), vision.data.images.shape[1:])
  each = cost(trainer.network, np.array(trainer.tokens), 32).multiply_adds
  forward = Needed(2.0 * sizes.batch * each, 0)
  arguments = state, jax.random.key(2), vision.data, (vision.indices, None)
  return work.Work(
    jax.jit(
      functools.partial(stand_alone.train_steps, trainer=trainer),
      donate_argnums=0,
    ),
    jax.tree.map(jnp.asarray, arguments),
    work.with_state,
    sizes.batch,
    "images",
    counting.training(forward).plus(work.momentum(state.params)),
  )
