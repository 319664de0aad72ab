"""A third task: small networks that classify rows of a table."""

import dataclasses

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure
import numpy as np
import optax
from sklearn import datasets

from nao_jax import metrics, settings
from nao_jax.data.digest import of_arrays
from nao_jax.runs.progress import WorkUnit
from nao_jax.search.config import ExperimentConfig
from nao_jax.spaces import slots
from nao_jax.tasks.task import Cells, OpenTask

ACTIVATIONS = (jax.nn.relu, jnp.tanh, jax.nn.silu, jnp.sin)
CHOICES = {"width": (2, 4, 8, 16), "rate": (0.1, 1.0), "act": ACTIVATIONS}
SPACE = slots.space("mlp", CHOICES)
PARTS = {"train": (0, 90), "validation": (90, 130), "test": (130, 178)}


@dataclasses.dataclass(frozen=True)
class TabularConfig(ExperimentConfig):
  """Settings of a search."""

  evaluator: str = settings.field("scratch", choices=("scratch",))
  epochs: int = settings.field(3, least=1)


class Networks(Cells):
  space, measure, data, example = SPACE, metrics.ACCURACY, "wine", "row"
  description, parts, op_names = "small networks", "layers", [*"abcd"]

  def __init__(self, settings):
    self.settings = settings

  def ops(self, tokens):
    return SPACE.indices(tokens)["act"][:, None]

  def figures(self, tokens):
    figure = Figure()
    figure.text(0.1, 0.5, SPACE.text(tokens))
    return {"The network.": figure}


@dataclasses.dataclass(frozen=True)
class Candidates:
  task: "OpenTabular"
  seed: int
  epochs: int
  part: str = "validation"
  devices, each = 1, WorkUnit(90, "rows")

  def start(self, tokens):
    keys = jax.random.split(jax.random.key(self.seed))
    return [np.asarray(jax.random.normal(keys[0], (13, 16))) / 4,
            np.asarray(jax.random.normal(keys[1], (16, 3))) / 4]  # fmt: skip

  def epoch(self, tokens, states, epochs, between):
    (x, y), (u, v) = self.task.rows("train"), self.task.rows(self.part)
    weights, loss = _step(states[0], tokens[0], x, y)
    right = _logits(weights, tokens[0], u).argmax(-1) == v
    return [(weights, float(loss), float(right.mean()))]


def _logits(weights, tokens, x):
  network, which = SPACE.values(tokens), SPACE.indices(tokens)
  hidden = jax.lax.switch(which["act"], ACTIVATIONS, x @ weights[0])
  return hidden * (jnp.arange(16) < network["width"]) @ weights[1]


@jax.jit
def _step(weights, tokens, x, y):
  def loss(weights):
    logits = _logits(weights, tokens, x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

  value, slopes = jax.value_and_grad(loss)(weights)
  rate = SPACE.values(tokens)["rate"]
  return jax.tree.map(lambda w, g: w - rate * g, weights, slopes), value


@dataclasses.dataclass(frozen=True)
class OpenTabular(OpenTask):
  config: TabularConfig
  x: np.ndarray
  y: np.ndarray

  @property
  def identity(self):
    return {"rows": of_arrays(0, self.x, self.y)}

  def rows(self, part):
    return self.x[slice(*PARTS[part])], self.y[slice(*PARTS[part])]

  def candidates(self):
    protocol = {"seed": self.config.seed, "epochs": self.config.epochs}
    return Candidates(self, *protocol.values()), protocol

  def retrained(self, stage):
    epochs = stage.budget.epochs
    candidates = Candidates(self, stage.seed, epochs, stage.part)
    measured = {"seed": stage.seed, "part": stage.part}
    return candidates, {"epochs": epochs, **measured}


class Tabular:
  cells = Networks

  def open(self, config, devices):
    x, y = datasets.load_wine(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x = (x - x.mean(0)) / x.std(0)
    return OpenTabular(config, np.float32(x)[order], np.int32(y)[order])
