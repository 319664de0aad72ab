"""Malformed input of all kinds, and what may come of it.

Nothing but a UserError may come of it, and whoever is refused finds all files
as they were.
"""

import contextlib
import io
import itertools
import json

from hypothesis import currently_in_test_context, event
from hypothesis import strategies as st
import numpy as np

from nao_jax.errors import UserError
from nao_jax.networks.macro import NetworkConfig
from nao_jax.settings import flatten
from nao_jax.spaces import cnn, nasbench201
from nao_jax.tasks import image_training
from nao_jax.tasks.image_recipes import TrainCnnConfig
from nao_jax.training.recipe import TrainConfig

NUMBER = itertools.count()


class Evil:
  """Makes a file where it is unpickled."""

  def __init__(self, file):
    self._file = file

  def __reduce__(self):
    return open, (str(self._file), "w")


WORDS = st.text(st.characters(exclude_characters="\0"), max_size=30)
INTEGERS = st.sampled_from(
  [-(2**70), -(2**31), -1, 0, 1, 2, 3, 2**31, 2**32, 2**63, 10**30]
) | st.integers(-5, 70)
FLOATS = (
  st.sampled_from(
    [
      *map(float, ("nan", "inf", "-inf")),
      -1.0,
      -0.0,
      5e-324,
      0.5,
      1.0,
      1.5,
      1e308,
    ]
  )
  | st.floats()
)
# What JSON can say, NaN included, and numbers that are too large for any array.
VALUES = st.recursive(
  st.none() | st.booleans() | INTEGERS | FLOATS | st.text(max_size=5),
  lambda inner: (
    st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=5), inner, max_size=3)
  ),
  max_leaves=5,
)
SIZES = st.sampled_from([0, 1, 2, 5, 6, 7, 15625])
SHAPES = [
  (),
  (5,),
  (6,),
  (20,),
  (15625,),
  (0, 6),
  (4, 6),
  (15625, 6),
  (15625, 5),
]
DTYPES = ("int8", "uint64", "float16", "float64", "complex64", "bool", "U3")
DTYPES += ("S2", "M8[s]", "i4,f4", "O")


@st.composite
def arrays(draw):
  """An array of any kind, objects included."""
  shape = draw(st.sampled_from(SHAPES))
  dtype = np.dtype(draw(st.sampled_from(DTYPES)))
  array = np.zeros(shape, dtype)
  if dtype.kind in "fc":
    array += draw(st.sampled_from([np.nan, np.inf, 1e4, -1.0]))
  if dtype.kind in "iu":
    array += draw(st.sampled_from([0, 1, 4, 5, 100])).__index__()
  return array


@st.composite
def damaged(draw, content: bytes):
  """The contents of a file after an accident."""
  accident = draw(st.sampled_from(["flipped", "cut", "replaced", "longer"]))
  event(accident)
  if accident == "replaced":
    return draw(st.binary(max_size=40) | st.just(b"\x80\x04K\x01."))
  if accident == "longer":
    return content + draw(st.binary(min_size=1, max_size=9))
  at = draw(st.integers(0, len(content) - 1))
  if accident == "cut":
    return content[:at]
  flipped = bytearray(content)
  flipped[at] ^= draw(st.integers(1, 255))
  return bytes(flipped)


@st.composite
def damaged_json(draw, document):
  """A file of JSON after an accident, or with something else inside."""
  kind = draw(st.sampled_from(["bytes", "value", "gone", "other", "deep"]))
  if kind == "bytes":
    return draw(damaged(json.dumps(document).encode()))
  event(kind)
  if kind == "deep":
    opening = draw(st.sampled_from(["[", '{"tokens":', '{"settings":[']))
    return (opening * 20_000).encode()
  if kind == "other":
    return json.dumps(draw(VALUES)).encode()
  changed = json.loads(json.dumps(document))
  holder, key = draw(st.sampled_from(list(_places(changed))))
  if kind == "gone":
    del holder[key]
  else:
    holder[key] = draw(VALUES)
  return json.dumps(changed).encode()


def _places(document):
  """(container, key) of everything in a JSON document."""
  items = document.items() if isinstance(document, dict) else ()
  if isinstance(document, list):
    # The first ones stand for all.
    items = itertools.islice(enumerate(document), 3)
  for key, value in items:
    yield document, key
    yield from _places(value)


CELLS_PAIR = {
  "space": "cnn-small-2",
  "tokens": [1, 4, 2, 5, 1, 4, 2, 5, 1, 4, 2, 5, 1, 4, 2, 5],
}

LIKE_A_TABLE = {
  "ops": np.array(list(np.ndindex(*[5] * 6)), np.int8),
  "op_names": np.array(nasbench201.OPS),
  "shapes_valid": np.arange(5**6, dtype=np.float32) / 1000,
}


def packed(contents: dict) -> bytes:
  """A .npz file; objects become pickles."""
  buffer = io.BytesIO()
  np.savez_compressed(buffer, allow_pickle=True, **contents)
  return buffer.getvalue()


def write_table(folder) -> str:
  """Writes a whole table; returns its path."""
  file = folder / "table.npz"
  file.write_bytes(packed(LIKE_A_TABLE))
  return str(file)


WHOLE_TEXT = {f"a.{part}.txt": b"a b\n" for part in ("train", "valid", "test")}

TRAINING = image_training.Training(
  config=TrainCnnConfig(
    arch=cnn.to_text(np.array(CELLS_PAIR["tokens"])),
    network=NetworkConfig(nodes=2, cells_per_stage=1, channels=2),
    train=TrainConfig(batch=4),
  ),
  image_shape=(8, 8, 1),
  examples=10,
  mean=(0.5,),
  std=(0.25,),
)
CONFIG = {"settings": flatten(TRAINING), "versions": {"jax": "1"}}


HISTORY = [{"epoch": n, "loss": 1.5 - n, "note": None} for n in range(3)]
RESULT = {"steps": 3, "test": {"loss": 0.25, "error": 0.5}}


def run_with(home, **files):
  """A workdir that holds these files and all others in good order."""
  folder = fresh(home)
  whole = {
    "config.json": json.dumps(CONFIG).encode(),
    "result.json": json.dumps(RESULT).encode(),
    "history.jsonl": b"".join(json.dumps(x).encode() + b"\n" for x in HISTORY),
  }
  for name, content in (whole | files).items():
    (folder / name).write_bytes(content)
  return folder


@contextlib.contextmanager
def refusals(folder, *named):
  """Lets UserErrors pass that name something and leave a folder as it was.

  Yields:
    A list that will hold the message, if there was one.
  """
  before, messages = contents_of(folder), []
  try:
    yield messages
  except UserError as error:
    # As drivers print it.
    message = " ".join(str(error).split())
    assert any(name in message for name in named), message
    assert contents_of(folder) == before
    messages.append(message)
  if currently_in_test_context():
    event("refused" if messages else "taken")


def contents_of(folder):
  # A lock stays where a run was refused, and is nobody's.
  return {
    path: path.read_bytes() if path.is_file() else None
    for path in folder.rglob("*")
    if path.name != ".lock"
  }


def fresh(home):
  folder = home / str(next(NUMBER))
  folder.mkdir()
  return folder
