"""Describes an architecture and the cost of its network, and draws it.

python -m experiments.describe --arch=NAONet-A --output=drawings/
python -m experiments.describe --arch=NAO-RNN --vocabulary=33278
python -m experiments.describe --preset=seminasnet_imagenet --arch=SemiNASNet \
  --classes=1000

The network is the stand-alone one, or the language model of a recurrent cell;
it is not built.
"""

from collections.abc import Callable, Sequence
import dataclasses
import functools
import json

from absl import flags, logging
from matplotlib.figure import Figure
import numpy as np
from rich import box
from rich.table import Table

from nao_jax.drawing import canvas, recurrent
from nao_jax.errors import UserError
from nao_jax.networks.build import Network
from nao_jax.networks.cost import Cost, Part, cost
from nao_jax.networks.macro import NetworkConfig
from nao_jax.networks.mobile_config import MobileConfig, MobileNetworkConfig
from nao_jax.networks.recurrent import LanguageModelConfig
from nao_jax.runs import paths, streams
from nao_jax.settings import Only, field, flatten, validate
from nao_jax.spaces import cnn, mobile, notation, published, rnn
from nao_jax.spaces.cnn import Architecture
from nao_jax.tasks import image_drawing, image_recipes, image_spaces

from . import driver, recurrent_description, settings

# Height and width of the images that each stem is designed for.
_IMAGE_SIZES = {"cifar": 32, "imagenet": 224}
# Channels and cells per stage: of the final networks, and of the benchmark.
_SIZES = {"nao": (36, 6), "nasbench201": (16, 5)}
# Flags of the networks of some spaces, or of one.
_ONLY = {
  ("nao",): ("ops", "nodes", "stem", "auxiliary"),
  ("nao", "nasbench201"): ("channels", "cells_per_stage"),
}


@dataclasses.dataclass(frozen=True)
class SpaceConfig:
  """Space of an architecture.

  Attributes:
    space: `nao`, `nasbench201` or `mobile`.
    mobile: with `space=mobile`, the sizes of the network and the blocks.
  """

  ACTS_WITH = (Only(("mobile",), "space", ("mobile",)),)

  space: str = field("nao", choices=image_recipes.SPACES)
  mobile: MobileConfig = MobileConfig()


# Those of final trainings of chains.
PRESETS = {"": SpaceConfig()} | {
  name: SpaceConfig(recipe.space, recipe.mobile)
  for name, recipe in image_recipes.RECIPES.items()
  if recipe.space == "mobile"
}
_PREFIXES = {"mobile": "mobile_"}
# The counts, of a part and of the whole.
_COUNTS = ("parameters", "multiply_adds")

_ARCH = flags.DEFINE_string(
  "arch",
  None,
  "A published name, numbers in the published notation, tokens, or a .json file"
  " with `tokens`. Of a recurrent cell, 2 is sigmoid and 3 identity, or behind"
  " 'nao:' the other way round.",
  required=True,
)
_OPS = flags.DEFINE_string(
  "ops",
  "small",
  "Op set, where --arch does not say which (names and most files do):"
  f" {', '.join(cnn.OP_SETS)}.",
)
_NODES = flags.DEFINE_integer(
  "nodes", 5, "Nodes of a cell, where --arch does not say how many."
)
_PRESET = flags.DEFINE_string(
  "preset",
  "",
  "Space and sizes of a final training of mobile blocks:"
  f" {', '.join(filter(None, PRESETS))}.",
)
settings.define(SpaceConfig, _PREFIXES)
_CHANNELS = flags.DEFINE_integer(
  "channels",
  None,
  "Width of the first stage (default: 36; with --space=nasbench201 16).",
)
_CELLS_PER_STAGE = flags.DEFINE_integer(
  "cells_per_stage",
  None,
  "Normal cells in each of the three stages (default: 6; with"
  " --space=nasbench201 5).",
)
_CLASSES = flags.DEFINE_integer(
  "classes", 10, "Of the classifier.", lower_bound=1
)
_STEM = flags.DEFINE_string(
  "stem", "cifar", f"For images like these: {', '.join(_IMAGE_SIZES)}."
)
_AUXILIARY = flags.DEFINE_boolean(
  "auxiliary", True, "The network has the auxiliary head."
)
_IMAGE_SIZE = flags.DEFINE_integer(
  "image_size",
  None,
  "Height and width of the images (default: 32; with --stem=imagenet or more"
  " strides than such images have 224).",
  lower_bound=1,
)
_IMAGE_CHANNELS = flags.DEFINE_integer(
  "image_channels", 3, "Of the images.", lower_bound=1
)
_RECURRENT = flags.DEFINE_boolean(
  "recurrent",
  False,
  "The numbers in --arch are a recurrent cell (names and files say so).",
)
_WIDTH = flags.DEFINE_integer(
  "width",
  LanguageModelConfig.width,
  "Of a recurrent cell's embeddings and states.",
  lower_bound=1,
)
_VOCABULARY = flags.DEFINE_integer(
  "vocabulary",
  LanguageModelConfig.vocabulary,
  "Words that the language model of a recurrent cell knows.",
  lower_bound=1,
)
_OUTPUT = flags.DEFINE_string(
  "output",
  None,
  "Draw the cells: a folder, or PREFIX of PREFIX.png, .svg and .pdf.",
)
_JSON = flags.DEFINE_boolean(
  "json", False, "Print one JSON object; as a file it is what --arch takes."
)


def main(_):
  """Describes the architecture that the flags name."""
  recurrent = _RECURRENT.value or recurrent_description.is_recurrent(
    _ARCH.value
  )
  description = _describe_recurrent() if recurrent else _describe()
  if _JSON.value:
    print(json.dumps(description))
  elif recurrent:
    lines = recurrent_description.lines(description)
    _show(recurrent_description.table(description), lines, description)
  else:
    about = "multiply-adds are those of convolutions and linear layers"
    about += ", for one image"
    where = f"architecture in space {description['space']}"
    text = f"{where}: {description['text']}"
    _show(_table(description), (about, text), description)


def _describe_recurrent() -> dict:
  tokens = rnn.resolve(_ARCH.value)
  if note := rnn.ambiguity_note(_ARCH.value):
    logging.warning("%s", note)
  description = recurrent_description.describe(
    tokens, _WIDTH.value, _VOCABULARY.value
  )
  draw = functools.partial(recurrent.figure, tokens)
  return description | {"drawings": _draw(draw, description["name"])}


def _describe() -> dict:
  config = _space()
  network, description = _of_cells() if config.space == "nao" else _of(config)
  image_size = _IMAGE_SIZE.value or _image_size(network)
  network.check(image_size)
  tokens = np.int32(description["tokens"])
  found = cost(network, tokens, image_size, _IMAGE_CHANNELS.value)
  draw = functools.partial(image_drawing.figure, network, tokens)
  return description | {
    "image": [image_size, image_size, _IMAGE_CHANNELS.value],
    **_as_json(found),
    "drawings": _draw(draw, description["name"]),
  }


def _space() -> SpaceConfig:
  """Returns the space by the flags, or by what --arch is."""
  config, arch = settings.choose(PRESETS, _PRESET.value, _PREFIXES), _ARCH.value
  if config.space == "nao":
    named = arch
    if arch.endswith(".json"):
      named = str(notation.read(arch, "arch").get("space"))
    if "~" in named or named == "nasbench201":
      config = dataclasses.replace(config, space="nasbench201")
    elif named.startswith("mobile"):
      config = dataclasses.replace(config, space="mobile")
  for spaces, names in _ONLY.items():
    for name in names:
      if config.space not in spaces and flags.FLAGS[name].present:
        raise UserError(
          f"--{name}={flags.FLAGS[name].value}: acts only with "
          f"--space={' or --space='.join(spaces)}"
        )
  return config


def _of_cells() -> tuple[NetworkConfig, dict]:
  """Returns the network of NAO's cells, and what identifies it."""
  architecture = cnn.resolve(_ARCH.value, ops=_OPS.value, nodes=_NODES.value)
  channels, cells = _SIZES["nao"]
  network = NetworkConfig(
    ops=architecture.ops,
    nodes=architecture.nodes,
    cells_per_stage=_or(_CELLS_PER_STAGE.value, cells),
    channels=_or(_CHANNELS.value, channels),
    classes=_CLASSES.value,
    stem=_STEM.value,
    auxiliary=_AUXILIARY.value,
  )
  sizes = {"network": dataclasses.asdict(network)}
  return network, _identity(architecture) | sizes


def _of(config: SpaceConfig) -> tuple[Network, dict]:
  """Returns the network of another space, and what identifies it."""
  sizes = {"classes": _CLASSES.value}
  if config.space == "nasbench201":
    channels, cells = _SIZES[config.space]
    sizes["cells_per_stage"] = _or(_CELLS_PER_STAGE.value, cells)
    sizes["channels"] = _or(_CHANNELS.value, channels)
  network = NetworkConfig(**sizes)
  validate(network)
  if config.space == "mobile":
    sizes |= flatten(config.mobile)
  layout = image_spaces.layout(config.space, mobile=config.mobile)
  space = layout.space
  tokens = space.parse(_ARCH.value)
  text = space.text(tokens)
  known = (space.name, text) == ("mobile", mobile.SEMINASNET)
  return layout.resized(network), {
    "name": "SemiNASNet" if known else None,
    "source": "Luo et al. 2020, arXiv 2002.10389" if known else None,
    "space": space.name,
    "text": text,
    "tokens": tokens.tolist(),
    "loose_ends": {},
    "network": sizes,
  }


def _or(value: int | None, default: int) -> int:
  return default if value is None else value


def _image_size(network: Network) -> int:
  """Returns the size of the images that a network is designed for."""
  if isinstance(network, NetworkConfig):
    return _IMAGE_SIZES.get(network.stem, 32)
  if isinstance(network, MobileNetworkConfig) and network.reduction >= 32:
    return 224
  return 32


def _identity(architecture: Architecture) -> dict:
  """Returns the architecture's identity; published ones by their cells."""
  text = cnn.to_text(architecture.tokens)
  known = {(entry.ops, entry.text): entry for entry in published.CONVOLUTIONAL}
  entry = known.get((architecture.ops, text))
  loose_ends = cnn.unused_states(cnn.to_cells(architecture.tokens))
  normal, reduction = (np.flatnonzero(cell).tolist() for cell in loose_ends)
  return {
    "name": entry and entry.name,
    "source": entry and entry.source,
    "space": architecture.space.name,
    "text": text,
    "tokens": architecture.tokens.tolist(),
    "loose_ends": {"normal": normal, "reduction": reduction},
  }


def _as_json(found: Cost) -> dict:
  return {
    "parameters": found.parameters,
    "auxiliary_parameters": found.auxiliary_parameters,
    "multiply_adds": found.multiply_adds,
    "parts": [_part_as_json(part) for part in found.parts],
    "auxiliary": found.auxiliary and _part_as_json(found.auxiliary),
  }


def _part_as_json(part: Part) -> dict:
  width, size = part.output
  return part._asdict() | {"output": [size, size, width]}


def _draw(draw: Callable[..., Figure], name: str | None) -> list[str]:
  """Writes the files of --output; `draw` is called with a title."""
  if _OUTPUT.value is None:
    return []
  prefix = paths.expanded(_OUTPUT.value)
  try:
    if _OUTPUT.value.endswith("/") or prefix.is_dir():
      prefix /= name or "cells"
    files = [f"{prefix}.{suffix}" for suffix in ("png", "svg", "pdf")]
    prefix.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(draw(title=name or ""), files)
  except OSError as error:
    raise UserError(
      f"--output={_OUTPUT.value}: cannot be written ({error.strerror}); give "
      "another"
    ) from error
  return files


def _show(table: Table, lines: Sequence[str], description: dict) -> None:
  """Prints a table of the costs, and the rest in unbroken lines."""
  console = streams.console()
  console.print(table)
  pictures = ", ".join(description["drawings"])
  source = description["source"]
  for line in (
    *lines,
    *([f"published in {source}"] if source else []),
    f"drawn in {pictures}" if pictures else "--output=FOLDER draws the cells",
  ):
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _table(description: dict) -> Table:
  table = Table(
    title=description["name"], title_justify="left", box=box.SIMPLE_HEAD
  )
  has_ends = bool(description["loose_ends"])
  for heading in ("part", *["loose ends"] * has_ends, "output"):
    table.add_column(heading)
  for heading in ("parameters", "multiply-adds"):
    table.add_column(heading, justify="right")
  for part in description["parts"]:
    loose = description["loose_ends"].get(part["name"], [])
    ends = [" ".join(map(str, loose))] * has_ends
    output = "x".join(map(str, part["output"]))
    table.add_row(part["name"], *ends, output, *_numbers(part))
  table.add_section()
  empty = [""] * (1 + has_ends)
  table.add_row("network", *empty, *_numbers(description))
  if head := description["auxiliary"]:
    both = {key: description[key] + head[key] for key in _COUNTS}
    table.add_row("with auxiliary", *empty, *_numbers(both))
  return table


def _numbers(counts: dict) -> list[str]:
  return [f"{counts[key]:,}" for key in _COUNTS]


if __name__ == "__main__":
  driver.run(main, prints_result=True)
