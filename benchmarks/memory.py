"""Memory of every published recipe, printed in Markdown; nothing is run.

python -m benchmarks.memory

Shows GiB of a training step on one device, in float32 and in bfloat16, and the
least `--accumulate` that fits devices of some sizes, of which jax takes three
quarters by default.
"""

import dataclasses

from nao_jax.data.augment import AugmentConfig
from nao_jax.networks.build import Network
from nao_jax.spaces import rnn
from nao_jax.tasks import (
  image_presets,
  image_recipes,
  image_spaces,
  image_training,
  text_presets,
  text_recipes,
)
from nao_jax.training import (
  candidate,
  memory,
  recurrent,
  stand_alone,
  stand_alone_language,
  supernet,
)

# Sizes of devices in GB, and the share that jax takes.
DEVICES, SHARE = (16, 24, 40, 80), 0.75
CIFAR, IMAGENET = ((32, 32, 3), 50_000), ((224, 224, 3), 0)
# Images that a search on ImageNet keeps in memory: 4 in 1,000 of 1,281,167.
SCORED_IMAGENET = 5_125
CLASSES = {"cifar100": 100, "imagenet2012": 1000}


def trainer(
  config: image_recipes.TrainCnnConfig, *, bfloat16: bool = False
) -> stand_alone.Trainer:
  """Returns the trainer of a recipe, with the classes of its data set.

  The number of examples does not depend on the data set.
  """
  config = image_training.with_architecture(config)
  network = _network(config)
  return stand_alone.Trainer(
    network=network,
    train=config.train,
    sgd=config.sgd,
    augment=AugmentConfig(),
    examples=50_000,
    tokens=tuple(network.space.parse(config.arch).tolist()),
    bfloat16=bfloat16,
  )


def _network(
  config: image_recipes.TrainCnnConfig | image_presets.SearchCnnConfig,
) -> Network:
  """Returns the network, with the classes of its data set."""
  classes = CLASSES.get(config.dataset, 10)
  layout = image_spaces.layout(config.space, mobile=config.mobile)
  return layout.resized(dataclasses.replace(config.network, classes=classes))


def _fitting(settings, shape, held) -> str:
  needed = [
    memory.least_accumulate(
      settings, shape, int(SHARE * gigabytes * 1e9), held=held
    )
    for gigabytes in DEVICES
  ]
  return ", ".join("none" if parts is None else str(parts) for parts in needed)


def network_row(name: str) -> str:
  """Returns the row of a recipe of `train_cnn`."""
  config = image_recipes.RECIPES[name]
  shape, held = IMAGENET if config.input == "stream" else CIFAR
  cells = [f"`{name}`", str(config.train.batch)]
  for bfloat16 in (False, True):
    settings = trainer(config, bfloat16=bfloat16)
    needed = memory.of_network(settings, shape, held=held)
    cells += [_gib(needed.kept), _gib(needed.total)]
    cells.append(_fitting(settings, shape, held))
  return _row(cells)


def search_row(name: str) -> str:
  """Returns the row of a preset of `search_cnn`, on one device."""
  config = image_presets.PRESETS[name]
  settings = {
    "network": _network(config),
    "train": config.train,
    "sgd": config.sgd,
    "augment": config.augment,
    "examples": 45_000,
  }
  shape, held = CIFAR[0], 45_000
  if config.input == "stream":
    shape, held = IMAGENET[0], SCORED_IMAGENET
  if config.evaluator == "shared":
    needed = memory.of_supernet(supernet.Trainer(**settings), shape, held=held)
  else:
    needed = memory.of_network(candidate.Trainer(**settings), shape, held=held)
  return _other_row(f"`{name}`", config.train.batch, needed)


def text_rows() -> list[str]:
  """Returns the rows of the recurrent recipes and of the search."""
  rows = []
  for name, words, vocabulary in (
    ("ptb", 929_589, 10_000),
    ("wikitext2", 2_088_628, 33_278),
  ):
    config = text_recipes.RECIPES[name]
    tokens = tuple(rnn.resolve(config.arch).tolist())
    model = dataclasses.replace(
      config.network, nodes=len(tokens) // 2, vocabulary=vocabulary
    )
    settings = stand_alone_language.Trainer(model, config.train, tokens)
    needed = memory.of_text(settings, words=words)
    rows.append(_other_row(f"`train_rnn {name}`", config.train.batch, needed))
  config = text_presets.PRESETS["ptb"]
  settings = recurrent.Trainer(config.network, config.train, shared=True)
  needed = memory.of_text(settings, words=929_589)
  return [*rows, _other_row("`search_rnn ptb`", config.train.batch, needed)]


def _other_row(name, batch, needed) -> str:
  return _row([name, str(batch), _gib(needed.kept), _gib(needed.total)])


def _gib(count: int) -> str:
  return f"{count / 2**30:.1f}"


def _row(cells) -> str:
  return f"| {' | '.join(cells)} |"


def main() -> None:
  """Prints each row as soon as it is computed."""
  for name in image_recipes.RECIPES:
    if name != "digits":
      print(network_row(name), flush=True)
  for name, config in image_presets.PRESETS.items():
    if not config.dataset.startswith("digits"):
      print(search_row(name), flush=True)
  print("\n".join(text_rows()))


if __name__ == "__main__":
  main()
