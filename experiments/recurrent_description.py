"""Describes a recurrent cell and the cost of its language model."""

from collections.abc import Iterator

import numpy as np
from rich import box
from rich.table import Table

from nao_jax.networks.recurrent import LanguageModelConfig
from nao_jax.spaces import notation, published, rnn


def is_recurrent(text: str) -> bool:
  """Returns whether a name or a file denotes a recurrent cell."""
  if text.endswith(".json"):
    return str(notation.read(text, "arch").get("space")).startswith("rnn-")
  if text.lower().startswith(rnn.OTHER_ORDER):
    return True
  names = {entry.name.lower() for entry in published.RECURRENT}
  return text.strip().lower() in names


def describe(tokens: np.ndarray, width: int, vocabulary: int) -> dict:
  """Returns a JSON-like description; a published cell is known by its text.

  Args:
    tokens: int32 [2 N].
    width: width of embeddings and states.
    vocabulary: number of words.
  """
  text = rnn.to_text(tokens)
  known = {entry.text: entry for entry in published.RECURRENT}
  entry = known.get(text)
  nodes = list(_nodes(rnn.to_cells(tokens), width))
  config = LanguageModelConfig(len(nodes) - 1, width, vocabulary)
  return {
    "name": entry and entry.name,
    "source": entry and entry.source,
    "space": rnn.space(config.nodes).name,
    "text": text,
    "tokens": tokens.tolist(),
    "network": {"width": width, "vocabulary": vocabulary},
    "depth": max(node["depth"] for node in nodes),
    "parameters": config.parameters,
    "parts": nodes,
  }


def _nodes(cell: np.ndarray, width: int) -> Iterator[dict]:
  """Yields every highway step; node 0's reads the input and the last state."""
  depth = [0]
  yield _node(0, None, "tanh", 0, 4 * width**2)
  for node, (predecessor, activation) in enumerate(cell.tolist(), 1):
    depth.append(depth[predecessor] + 1)
    name = rnn.ACTIVATIONS[activation]
    yield _node(node, predecessor, name, depth[node], 2 * width**2)


def _node(node, predecessor, activation, depth, parameters) -> dict:
  return {
    "node": node,
    "predecessor": predecessor,
    "activation": activation,
    "depth": depth,
    "parameters": parameters,
  }


def lines(description: dict) -> tuple[str, str]:
  """Returns lines about the language model and the cell."""
  network = description["network"]
  return (
    f"for {network['vocabulary']:,} words, with states {network['width']:,} "
    f"wide; a step is {description['depth'] + 1} highway steps deep",
    f"cell in space {description['space']}: {description['text']}",
  )


def table(description: dict) -> Table:
  """Tabulates the nodes and their costs."""
  found = Table(
    title=description["name"], title_justify="left", box=box.SIMPLE_HEAD
  )
  for heading in ("node", "reads", "activation", "depth", "parameters"):
    named = heading in ("reads", "activation")
    found.add_column(heading, justify="left" if named else "right")
  for part in description["parts"]:
    source = part["predecessor"]
    found.add_row(
      str(part["node"]),
      "input, state" if source is None else str(source),
      part["activation"],
      str(part["depth"]),
      f"{part['parameters']:,}",
    )
  found.add_section()
  words = description["parameters"] - sum(
    part["parameters"] for part in description["parts"]
  )
  found.add_row("", "embedding, bias", "", "", f"{words:,}")
  found.add_row("", "language model", "", "", f"{description['parameters']:,}")
  return found
