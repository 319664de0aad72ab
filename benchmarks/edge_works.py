"""Training and scoring of the supernet of NAS-Bench-201, as pieces of work.

The recipe is that of the preset `cifar10_nasbench201`, but that cells are drawn
uniformly. benchmarks/peers/nasbench201_torch.py runs the same cells in the same
order.
"""

import dataclasses

import numpy as np

from benchmarks import work
from nao_jax.networks.edge_config import EdgeNetworkConfig
from nao_jax.spaces import nasbench201
from nao_jax.tasks.image_presets import PRESETS


def edge_supernet_train(sizes: work.Sizes) -> work.Work:
  """Builds a training step: augment, forward, backward, update."""
  return work.supernet_step(vision_of(sizes), sizes.devices)


def edge_supernet_score(sizes: work.Sizes) -> work.Work:
  """Builds the scoring of one architecture a device, on one batch."""
  return work.supernet_scoring(vision_of(sizes), sizes.devices)


def vision_of(sizes: work.Sizes) -> work.Vision:
  """Returns the inputs of both works."""
  vision, preset = work.vision_of(sizes), PRESETS["cifar10_nasbench201"]
  recipe = {
    "network": EdgeNetworkConfig(
      sizes.cells_per_stage, sizes.channels, affine=preset.supernet_affine
    ),
    "train": dataclasses.replace(preset.train, batch=sizes.batch),
    "sgd": preset.sgd,
  }
  shape = len(vision.tokens), len(nasbench201.EDGES)
  ops = np.random.RandomState(0).randint(0, len(nasbench201.OPS), shape)
  return vision._replace(
    recipe=vision.recipe | recipe, tokens=nasbench201.to_tokens(ops)
  )
