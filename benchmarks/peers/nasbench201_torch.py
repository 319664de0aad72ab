"""The supernet of NAS-Bench-201 in eager PyTorch, to time beside this project.

python -m venv PEER && PEER/bin/pip install torch==2.13.0 numpy
python -m benchmarks.side_by_side --about='eager PyTorch 2.13.0' \
  --peer='PEER/bin/python benchmarks/peers/nasbench201_torch.py' \
  --only=nasbench201_train,nasbench201_score

Written from the description of Dong and Yang (ICLR 2020). A step does what one
of benchmarks/edge_works.py does with the same cells in the same order: it crops
and flips a batch, trains one cell on it with the batch's own BatchNorm
statistics, and updates the weights. Neither side computes `none`; weights
without a gradient are not updated here. Prints what benchmarks/pairs.py
describes.
"""

import json
import statistics
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

# {name: (channels, cells in a stage, images in a batch, calls to time)}.
WORKS = {
  "nasbench201_train": (16, 5, 64, 6),
  "nasbench201_score": (16, 5, 64, 10),
  "nasbench201_small_train": (8, 2, 64, 12),
  "nasbench201_small_score": (8, 2, 64, 20),
}
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
NONE, SKIP, CONV_1X1, CONV_3X3, _ = range(5)
EXAMPLES, PIXELS, PADDING = 512, 32, 4


class Norm(nn.Module):
  """BatchNorm with the batch's own statistics, in training and scoring."""

  def __init__(self, width: int):
    super().__init__()
    self.scale = nn.Parameter(torch.ones(width))
    self.offset = nn.Parameter(torch.zeros(width))

  def forward(self, x):
    """Normalises [B, C, H, W]."""
    return F.batch_norm(x, None, None, self.scale, self.offset, training=True)


def _conv(inputs, outputs, size, stride=1):
  return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)


class Cell(nn.Module):
  """A cell; its six edges have weights of their own, and no learnt scales."""

  def __init__(self, width: int):
    super().__init__()
    self.convs = nn.ModuleDict(
      {
        str(op): nn.ModuleList(_conv(width, width, size) for _ in EDGES)
        for op, size in ((CONV_1X1, 1), (CONV_3X3, 3))
      }
    )

  def forward(self, x, ops):
    """Maps [B, C, H, W] to the same by the operations [6] of the edges."""
    states = [x]
    for state in (1, 2, 3):
      found = [
        self._edge(states[source], edge, ops[edge])
        for edge, (source, target) in enumerate(EDGES)
        if target == state and ops[edge] != NONE
      ]
      states.append(sum(found[1:], found[0]) if found else torch.zeros_like(x))
    return states[-1]

  def _edge(self, x, edge, op):
    if op == SKIP:
      return x
    if op in (CONV_1X1, CONV_3X3):
      x = self.convs[str(op)][edge](F.relu(x))
      return F.batch_norm(x, None, None, training=True)
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


class Residual(nn.Module):
  """The fixed block with stride 2 between two stages."""

  def __init__(self, width: int):
    super().__init__()
    self.first, self.first_norm = _conv(width, 2 * width, 3, 2), Norm(2 * width)
    self.second = _conv(2 * width, 2 * width, 3)
    self.second_norm = Norm(2 * width)
    self.shortcut = _conv(width, 2 * width, 1)

  def forward(self, x):
    """Maps [B, C, H, W] to [B, 2 C, H / 2, W / 2]."""
    y = self.first_norm(self.first(F.relu(x)))
    y = self.second_norm(self.second(F.relu(y)))
    return y + self.shortcut(F.avg_pool2d(x, 2))


class Supernet(nn.Module):
  """Stem, three stages of cells, classifier."""

  def __init__(self, channels: int, cells: int):
    super().__init__()
    self.stem, self.stem_norm = _conv(3, channels, 3), Norm(channels)
    self.stages = nn.ModuleList(
      nn.ModuleList(Cell(channels * 2**stage) for _ in range(cells))
      for stage in range(3)
    )
    self.residuals = nn.ModuleList(
      Residual(channels * 2**stage) for stage in range(2)
    )
    self.last_norm = Norm(4 * channels)
    self.classifier = nn.Linear(4 * channels, 10)

  def forward(self, images, ops):
    """Maps images [B, 3, H, W] to logits [B, 10] by the operations [6]."""
    x = self.stem_norm(self.stem(images))
    for stage, cells in enumerate(self.stages):
      if stage:
        x = self.residuals[stage - 1](x)
      for cell in cells:
        x = cell(x, ops)
    return self.classifier(F.relu(self.last_norm(x)).mean((2, 3)))


def augmented(images: torch.Tensor) -> torch.Tensor:
  """Crops and flips each of the images uint8 [B, 3, H, W] at random."""
  batch = len(images)
  padded = F.pad(images, (PADDING,) * 4)
  starts = torch.randint(0, 2 * PADDING + 1, (2, batch, 1))
  rows, columns = starts + torch.arange(PIXELS)
  flipped = torch.rand(batch, 1) < 0.5
  columns = torch.where(flipped, columns.flip(1), columns)
  at = torch.arange(batch)[:, None, None, None]
  return padded[
    at, torch.arange(3)[:, None, None], rows[:, None, :, None],
    columns[:, None, None],
  ]  # fmt: skip


def normalised(images: torch.Tensor) -> torch.Tensor:
  """Converts uint8 [B, 3, H, W] to floats around 0."""
  return (images.float() / 255 - 0.5) / 0.25


def trainer(net: Supernet, images: torch.Tensor, labels: torch.Tensor):
  """Returns a function of a cell that takes a step of SGD."""
  optimiser = torch.optim.SGD(
    net.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4
  )

  def step(ops):
    optimiser.zero_grad()
    loss = F.cross_entropy(net(normalised(augmented(images)), ops), labels)
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), 5.0)
    optimiser.step()
    return loss.item()

  return step


def scorer(net: Supernet, images: torch.Tensor, labels: torch.Tensor):
  """Returns a function of a cell that counts what it classifies rightly."""

  @torch.no_grad()
  def score(ops):
    return (net(normalised(images), ops).argmax(1) == labels).sum().item()

  return score


def timed(name: str) -> dict[str, float]:
  """Returns the median, fastest and slowest seconds of the calls of a work."""
  channels, cells, batch, calls = WORKS[name]
  images = torch.randint(
    0, 256, (EXAMPLES, 3, PIXELS, PIXELS), dtype=torch.uint8
  )
  labels = torch.randint(0, 10, (EXAMPLES,))
  make = trainer if name.endswith("train") else scorer
  run = make(Supernet(channels, cells), images[:batch], labels[:batch])
  pool = np.random.RandomState(0).randint(0, 5, (64, len(EDGES))).tolist()
  run(pool[0]), run(pool[0])
  seconds = []
  for ops in pool[1 : calls + 1]:
    start = time.perf_counter()
    run(ops)
    seconds.append(time.perf_counter() - start)
  return {
    "seconds": statistics.median(seconds),
    "fastest": min(seconds),
    "slowest": max(seconds),
  }


if __name__ == "__main__":
  torch.manual_seed(0)
  print(json.dumps({name: timed(name) for name in sys.argv[1:] or WORKS}))
