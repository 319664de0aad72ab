"""Describes an architecture and the cost of its network, and draws it.

python -m experiments.describe --arch=NAONet-A --output=drawings/
python -m experiments.describe --arch=NAO-RNN --vocabulary=33278

The network is the stand-alone one, or the language model of a recurrent cell;
it is not built.
"""

from collections.abc import Callable, Sequence
import dataclasses
import functools
import json

from absl import flags, logging
import numpy as np
from rich import box
from rich.table import Table

from nao_jax.drawing import convolutional, recurrent
from nao_jax.errors import UserError
from nao_jax.networks.cost import Cost, Part, cost
from nao_jax.networks.macro import NetworkConfig
from nao_jax.networks.recurrent import LanguageModelConfig
from nao_jax.runs import paths, streams
from nao_jax.spaces import cnn, published, rnn
from nao_jax.spaces.cnn import Architecture

from . import driver, recurrent_description

# Height and width of the images that each stem is designed for.
_IMAGE_SIZES = {"cifar": 32, "imagenet": 224}
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
_CHANNELS = flags.DEFINE_integer("channels", 36, "Width of the first stage.")
_CELLS_PER_STAGE = flags.DEFINE_integer(
  "cells_per_stage", 6, "Normal cells in each of the three stages."
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
  "Height and width of the images (default: 32; with --stem=imagenet 224).",
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
    cells = f"cells in space {description['space']}: {description['text']}"
    _show(_table(description), (about, cells), description)


def _describe_recurrent() -> dict:
  tokens = rnn.resolve(_ARCH.value)
  if note := rnn.ambiguity_note(_ARCH.value):
    logging.warning("%s", note)
  description = recurrent_description.describe(
    tokens, _WIDTH.value, _VOCABULARY.value
  )
  draw = functools.partial(recurrent.draw_cell, tokens)
  return description | {"drawings": _draw(draw, description["name"])}


def _describe() -> dict:
  architecture = cnn.resolve(_ARCH.value, ops=_OPS.value, nodes=_NODES.value)
  config, image_size = _sizes(architecture)
  found = cost(config, architecture.tokens, image_size, _IMAGE_CHANNELS.value)
  description = _identity(architecture)
  draw = functools.partial(
    convolutional.draw_cells, architecture.tokens, cnn.OP_SETS[architecture.ops]
  )
  return description | {
    "network": dataclasses.asdict(config),
    "image": [image_size, image_size, _IMAGE_CHANNELS.value],
    **_as_json(found),
    "drawings": _draw(draw, description["name"]),
  }


def _sizes(architecture: Architecture) -> tuple[NetworkConfig, int]:
  """Returns the network and the size of its images, checked."""
  config = NetworkConfig(
    ops=architecture.ops,
    nodes=architecture.nodes,
    cells_per_stage=_CELLS_PER_STAGE.value,
    channels=_CHANNELS.value,
    classes=_CLASSES.value,
    stem=_STEM.value,
    auxiliary=_AUXILIARY.value,
  )
  image_size = _IMAGE_SIZE.value or _IMAGE_SIZES.get(config.stem, 32)
  config.check(image_size)
  return config, image_size


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


def _draw(draw: Callable[..., None], name: str | None) -> list[str]:
  """Draws the files of --output; `draw` is called with them and a title."""
  if _OUTPUT.value is None:
    return []
  prefix = paths.expanded(_OUTPUT.value)
  try:
    if _OUTPUT.value.endswith("/") or prefix.is_dir():
      prefix /= name or "cells"
    files = [f"{prefix}.{suffix}" for suffix in ("png", "svg", "pdf")]
    prefix.parent.mkdir(parents=True, exist_ok=True)
    draw(files, title=name or "")
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
  for heading in ("part", "loose ends", "output"):
    table.add_column(heading)
  for heading in ("parameters", "multiply-adds"):
    table.add_column(heading, justify="right")
  for part in description["parts"]:
    loose = description["loose_ends"].get(part["name"], [])
    output = "x".join(map(str, part["output"]))
    table.add_row(
      part["name"], " ".join(map(str, loose)), output, *_numbers(part)
    )
  table.add_section()
  table.add_row("network", "", "", *_numbers(description))
  if head := description["auxiliary"]:
    both = {key: description[key] + head[key] for key in _COUNTS}
    table.add_row("with auxiliary", "", "", *_numbers(both))
  return table


def _numbers(counts: dict) -> list[str]:
  return [f"{counts[key]:,}" for key in _COUNTS]


if __name__ == "__main__":
  driver.run(main, prints_result=True)
