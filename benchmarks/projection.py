r"""Projected duration of the paper's searches on many accelerators.

python -m benchmarks.throughput --json=FILE
python -m benchmarks.projection --measured=FILE [--faster=50] [--picture=FILE]

Each phase of a search consists of pieces that benchmarks.throughput measures,
shared out to the accelerators as far as the phase allows; docs/scaling.md lists
the assumptions. Only the pieces are measured.
"""

import dataclasses
import math

from absl import flags
import jax
from matplotlib.figure import Figure
import numpy as np

from benchmarks.work import Sizes
from experiments import driver
from nao_jax.data.augment import AugmentConfig
from nao_jax.errors import UserError
from nao_jax.networks.cost import cost
from nao_jax.networks.macro import NetworkConfig
from nao_jax.runs import json_file, streams
from nao_jax.spaces import cnn
from nao_jax.strategies.nao import NaoConfig
from nao_jax.tasks import image_presets, text_presets
from nao_jax.training import supernet
from nao_jax.training.optimisers import SgdConfig
from nao_jax.training.recipe import Images, TrainConfig

_MEASURED = flags.DEFINE_string(
  "measured", None, "Figures of benchmarks.throughput.", required=True
)
_FASTER = flags.DEFINE_float(
  "faster", 50, "Speed of an accelerator, this machine's being 1.", 0.001
)
_LINK = flags.DEFINE_float(
  "link", 10, "GB/s between two accelerators, each way.", 0.001
)
_PICTURE = flags.DEFINE_string("picture", None, "A .png file to draw to.")

ACCELERATORS = (1, 8, 64, 512)
MANY_TRIALS = (1000, 100_000, 1_000_000)

CIFAR_IMAGES, IMAGE_SIZE, CIFAR_CHANNELS = 50_000, 32, 3
PTB_TRAIN, PTB_VALID = 929_589, 73_760
# A backward pass costs about twice a forward pass, so a training step costs
# three forward passes.
FORWARD_SHARE = 1 / 3


@dataclasses.dataclass(frozen=True)
class Phase:
  """A part of a search.

  Attributes:
    name: name of the phase.
    seconds: time on one accelerator, all rounds together.
    parts: number of accelerators that can share it; 1 if it is serial.
    calls: number of times that all accelerators wait for each other.
    bytes_a_call: bytes that each call sums over all accelerators.
  """

  name: str
  seconds: float
  parts: int = 1
  calls: int = 0
  bytes_a_call: float = 0.0

  def on(self, accelerators: int, link: float) -> float:
    """Returns the seconds on some accelerators.

    Args:
      accelerators: their number; they sum gradients by a ring all-reduce.
      link: bytes a second between two of them, each way.
    """
    used = min(accelerators, self.parts)
    # Parts are indivisible: in the last turn some accelerators may be idle.
    share = math.ceil(self.parts / used) / self.parts
    ring = 2 * self.bytes_a_call * (used - 1) / used / link
    return self.seconds * share + self.calls * ring


class Rates:
  """Measured rates, scaled to an accelerator that is `faster` times as fast."""

  def __init__(self, figures: dict, faster: float):
    self._figures, self._faster = figures, faster

  def __getitem__(self, name: str) -> float:
    """Returns units of work a second."""
    if name not in self._figures:
      raise UserError(
        f"--measured={_MEASURED.value}: it has no {name}; run "
        "benchmarks.throughput without --only"
      )
    return self._figures[name]["rate"] * self._faster


def controller_phases(
  rates: Rates, pools: list[int], nao: NaoConfig, epochs: int
) -> list[Phase]:
  """Returns the phases of `nao`.

  Each scoring but the last is followed by a fit and proposals.
  """
  learned = sum((1 - nao.held_out) * size for size in pools[:-1])
  candidates = nao.top_k * nao.max_step_size // nao.step_size
  return [
    Phase("fit", epochs * learned / rates["controller_fit"]),
    Phase("propose", len(pools[:-1]) * candidates / rates["propose"]),
  ]


def pool_sizes(search) -> list[int]:
  """Returns the size of the pool at each scoring."""
  entering = search.new_per_round + search.random_per_round
  grown = entering if search.extend else 0
  return [search.pool_size + grown * n for n in range(search.rounds + 1)]


def shared_cells(
  rates: Rates, config: image_presets.SearchCnnConfig
) -> list[Phase]:
  """Returns the phases of a search of cells with shared weights."""
  pools = pool_sizes(config.search)
  held = int(CIFAR_IMAGES * config.validation_fraction)
  epochs = config.train.epochs // len(pools) * len(pools)
  batch = config.train.batch
  steps = epochs * ((CIFAR_IMAGES - held) // batch)
  gradients = _supernet_bytes(config.network)
  images = held * sum(pools)
  return [
    Phase(
      "train", steps * batch / rates["supernet_train"], batch, steps, gradients
    ),
    Phase("score", images / rates["supernet_score"], min(pools)),
    *controller_phases(rates, pools, config.nao, config.fit.epochs),
  ]


def scratch_cells(
  rates: Rates, config: image_presets.SearchCnnConfig
) -> list[Phase]:
  """Returns the phases of a search whose cells are trained from scratch.

  A round waits for its slowest training.
  """
  return [
    Phase(
      "train",
      config.search.pool_size * trial_seconds(rates, config),
      config.search.pool_size,
    ),
    Phase(
      "train, later rounds",
      config.search.rounds
      * config.search.new_per_round
      * trial_seconds(rates, config),
      config.search.new_per_round,
    ),
    *controller_phases(
      rates, pool_sizes(config.search), config.nao, config.fit.epochs
    ),
  ]


def trial_seconds(rates: Rates, config: image_presets.SearchCnnConfig) -> float:
  """Returns the seconds of one training.

  The cost of an image is proportional to its multiply-adds.
  """
  held = int(CIFAR_IMAGES * config.validation_fraction)
  read = config.train.epochs * (CIFAR_IMAGES - held + FORWARD_SHARE * held)
  measured = NetworkConfig(
    channels=Sizes.channels, cells_per_stage=Sizes.cells_per_stage
  )
  dearer = _multiply_adds(config.network) / _multiply_adds(measured)
  return read * dearer / rates["scratch_train"]


def shared_language(
  rates: Rates, config: text_presets.SearchRnnConfig
) -> list[Phase]:
  """Returns the phases of a search of recurrent cells with shared weights."""
  pools = pool_sizes(config.search)
  epochs = config.train.epochs // len(pools) * len(pools)
  words = epochs * PTB_TRAIN
  batch = config.train.batch
  steps = words // (batch * config.train.bptt)
  width, nodes = config.network.width, config.network.nodes
  # One cell's matrices, and the embedding, which is also the output layer.
  gradients = 4 * (2 * width * width * (nodes + 1) + 10_000 * width)
  return [
    Phase(
      "train", words / rates["rnn_supernet_train"], batch, steps, gradients
    ),
    Phase(
      "score", PTB_VALID * sum(pools) / rates["rnn_supernet_score"], min(pools)
    ),
    *controller_phases(rates, pools, config.nao, config.fit.epochs),
  ]


def _multiply_adds(network: NetworkConfig, count: int = 200) -> float:
  """Returns the mean over random architectures, for an image of CIFAR."""
  rows = cnn.space(network.nodes, network.ops).sample(jax.random.key(0), count)
  return float(
    np.mean(
      [
        cost(network, row, IMAGE_SIZE, CIFAR_CHANNELS).multiply_adds
        for row in np.asarray(rows)
      ]
    )
  )


def _supernet_bytes(network: NetworkConfig) -> float:
  """Returns the bytes of the gradient of all shared weights, zeros included."""
  trainer = supernet.Trainer(
    network, TrainConfig(), SgdConfig(), AugmentConfig(), CIFAR_IMAGES
  )
  shape = (1, IMAGE_SIZE, IMAGE_SIZE, CIFAR_CHANNELS)
  data = Images(np.zeros(shape, np.uint8), np.zeros(1, np.int32), None, None)
  state = trainer.init(jax.random.key(0), data)
  return sum(4 * leaf.size for leaf in jax.tree.leaves(state.params))


def _read(file: str) -> dict:
  found = json_file.read(
    file,
    place=f"--measured={file}",
    wanted="figures of benchmarks.throughput",
    advice="give what its --json wrote",
  )
  if not isinstance(found.get("figures"), dict):
    raise UserError(f"--measured={file}: it has no figures")
  return found["figures"]


def _by_phase(searches: dict, link: float) -> list[dict[str, str]]:
  rows = []
  for name, phases in searches.items():
    parts = [(phase.name, [phase], f"{phase.parts:,}") for phase in phases]
    rows += [
      {"search": name, "phase": phase}
      | _hours(included, link)
      | {"saturates at": saturates}
      for phase, included, saturates in (*parts, ("all", phases, ""))
    ]
  return rows


def _hours(phases: list[Phase], link: float) -> dict[str, str]:
  """Returns {number of accelerators: hours}."""
  totals = {
    str(count): sum(phase.on(count, link) for phase in phases) / 3600
    for count in ACCELERATORS
  }
  return {count: f"{total:,.2f}" for count, total in totals.items()}


def _many_trials(rates: Rates) -> list[dict[str, str]]:
  """Shows at how many accelerators the serial fits take half of the time."""
  config = image_presets.PRESETS["cifar10_scratch"]
  trial = trial_seconds(rates, config)
  # As many rounds as the paper's search has; each fit uses all known trials.
  rounds, rows = config.search.rounds, []
  for count in MANY_TRIALS:
    pools = [count * (n + 1) // (rounds + 1) for n in range(rounds + 1)]
    fit, _ = controller_phases(rates, pools, config.nao, config.fit.epochs)
    rows.append(
      {"trials": f"{count:,}", "fits": f"{fit.seconds / 3600:,.2f}"}
      | {
        str(n): f"{(math.ceil(count / n) * trial + fit.seconds) / 3600:,.0f}"
        for n in ACCELERATORS
      }
      | {"fits are half at": f"{count * trial / fit.seconds:,.0f}"}
    )
  return rows


def _draw(searches: dict, link: float, file: str) -> None:
  figure = Figure(figsize=(8, 4), layout="constrained")
  axes = figure.subplots(1, len(searches), sharey=True)
  counts = 2 ** np.arange(10)
  for place, (name, phases) in zip(axes, searches.items(), strict=True):
    for phase in phases:
      hours = [phase.on(int(count), link) / 3600 for count in counts]
      place.loglog(counts, hours, label=phase.name, lw=1.5)
    totals = [sum(p.on(int(c), link) for p in phases) / 3600 for c in counts]
    place.loglog(counts, totals, color="black", lw=2.5, label="all")
    place.set(title=name, xlabel="accelerators")
    place.grid(alpha=0.3)
    place.legend(frameon=False, fontsize=8)
  axes[0].set(ylabel="projected hours", ylim=(1e-3, None))
  figure.savefig(file, dpi=150)


def main(_):
  """Prints the projections, and draws them."""
  rates = Rates(_read(_MEASURED.value), _FASTER.value)
  link = _LINK.value * 1e9
  searches = {
    "cifar10": shared_cells(rates, image_presets.PRESETS["cifar10"]),
    "cifar10_scratch": scratch_cells(
      rates, image_presets.PRESETS["cifar10_scratch"]
    ),
    "ptb": shared_language(rates, text_presets.PRESETS["ptb"]),
  }
  print(
    f"accelerators of {_FASTER.value:g} times this machine's speed, links of "
    f"{_LINK.value:g} GB/s"
  )
  for title, rows in (
    ("hours of a search, by phase", _by_phase(searches, link)),
    ("hours of many trials from scratch", _many_trials(rates)),
  ):
    streams.show(rows, title, wide=140)
  if _PICTURE.value:
    _draw(searches, link, _PICTURE.value)


if __name__ == "__main__":
  driver.run(main)
