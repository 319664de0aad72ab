"""Guards of speed that need no clock: program size, memory, copies.

Programs for a GPU are lowered and not compiled; only a compiler with a GPU
knows the memory that they need.
"""

import collections
import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import counting, work
from nao_jax.networks.recurrent import LanguageModelConfig
from nao_jax.spaces import rnn
from nao_jax.training import recurrent
from nao_jax.training.language import TextTrainConfig
from tests.short_networks import ShortConfig

STEPS, STREAMS, WORDS, WIDTH, NODES = 16, 256, 4096, 8, 3


@pytest.fixture(scope="module")
def scored():
  """A compiled score of one cell, its arguments, and other cells."""
  trainer = recurrent.Trainer(
    LanguageModelConfig(NODES, WIDTH, WORDS), TextTrainConfig(), shared=True
  )
  weights = trainer.init(jax.random.key(0))
  text = jnp.zeros((1, STEPS + 1, STREAMS), jnp.int32)
  cells = jnp.asarray(
    rnn.to_cells(np.asarray(rnn.space(NODES).sample(jax.random.key(1), 2)))
  )
  program = jax.jit(functools.partial(recurrent.score, trainer=trainer))
  arguments = weights, cells[:1], text
  return program, program.lower(*arguments).compile(), arguments, cells[1:]


def test_a_score_never_holds_the_logits_of_all_steps(scored):
  memory = scored[1].memory_analysis().temp_size_in_bytes
  assert memory < STEPS * STREAMS * WORDS * 4 / 2


def test_a_score_needs_the_products_of_its_equations_and_no_more(scored):
  program, _, arguments, _ = scored
  needed = counting.count(program, *arguments).operations
  steps = 2 * STEPS * STREAMS * WIDTH
  matrices = (2 + NODES) * 2 * WIDTH  # W_0 has two parts.
  assert needed == steps * (matrices + WORDS)


def test_another_cell_moves_nothing_to_the_device(scored):
  _, compiled, (weights, cells, text), others = scored
  compiled(weights, cells, text)
  with jax.transfer_guard("disallow"):
    jax.block_until_ready(compiled(weights, others, text))


@dataclasses.dataclass(frozen=True)
class Short(work.Sizes):
  """Two cells of two nodes, as compiling takes most of the time."""

  @property
  def network(self):
    """The network with these nodes and channels."""
    return ShortConfig(nodes=self.nodes, channels=self.channels, kinds="RN")


SHORT = Short(
  batch=2, channels=2, nodes=2, streams=2, steps=3, width=8, vocabulary=64
)


class Bounds(NamedTuple):
  """Half as much again as was found; of a loop one step counts.

  Attributes:
    lines: of the program before it is compiled; what is repeated is there once.
    operations: that the compiler counts.
    memory: bytes between arguments and results.
    gpu_operations: that are counted in the program for a GPU.
    gpu_bytes: that its operations read and write before they are fused.
    conditionals: at most so many in it choose while it runs; the host waits for
      the index of each.
    transposes: at most so many in it.
    donated: whether the new state takes the place of the old one.
  """

  lines: float
  operations: float
  memory: float
  gpu_operations: float
  gpu_bytes: float
  conditionals: int
  transposes: int
  donated: bool = False


BOUNDS = {
  # jax 0.12 lowers 20 transposes, jax 0.10 had 12.
  work.supernet_train: Bounds(
    *(14e3, 14e6, 1.4e6, 9.1e6, 41e6, 4, 24), donated=True
  ),
  work.supernet_score: Bounds(2.9e3, 3.3e6, 350e3, 3e6, 11.6e6, 2, 9),
  work.controller_fit: Bounds(4.4e3, 1.7e9, 58e6, 736e6, 486e6, 2, 22),
  work.propose: Bounds(780, 1.7e9, 36e6, 1e9, 262e6, 0, 4),
  work.rnn_supernet_train: Bounds(
    *(5e3, 180e3, 61e3, 195e3, 2e6, 0, 27), donated=True
  ),
}


@pytest.fixture(scope="module", params=BOUNDS, ids=lambda make: make.__name__)
def compiled(request):
  """Some work, the program that it makes, its lines, and its bounds."""
  made = request.param(SHORT)
  lowered = made.program.lower(*made.arguments)
  lines = lowered.as_text().count("\n")
  return made, lowered.compile(), lines, BOUNDS[request.param]


def test_a_program_has_no_more_lines_than_it_had(compiled):
  *_, lines, bounds = compiled
  assert lines < bounds.lines


def test_a_program_has_no_more_operations_than_it_had(compiled):
  _, program, _, bounds = compiled
  assert program.cost_analysis()["flops"] < bounds.operations


def test_a_program_needs_no_more_memory_than_it_did(compiled):
  _, program, _, bounds = compiled
  assert program.memory_analysis().temp_size_in_bytes < bounds.memory


def test_the_new_state_takes_the_place_of_the_old_one(compiled):
  made, program, _, bounds = compiled
  state = sum(leaf.nbytes for leaf in jax.tree.leaves(made.arguments[0]))
  reused = program.memory_analysis().alias_size_in_bytes
  assert reused >= state if bounds.donated else reused == 0


@pytest.fixture(scope="module")
def for_gpu(compiled):
  """The program of the same work for a GPU."""
  made = compiled[0]
  traced = jax.jit(made.program).trace(*made.arguments)
  return traced.lower(lowering_platforms=("cuda",))


def test_a_gpu_has_no_more_operations_and_bytes_than_it_had(compiled, for_gpu):
  *_, bounds = compiled
  cost = for_gpu.cost_analysis()
  assert cost["flops"] < bounds.gpu_operations
  assert cost["bytes accessed"] < bounds.gpu_bytes


def _operations(outer):
  """Yields all operations inside another one."""
  for region in outer.regions:
    for block in region:
      for inner in block:
        yield inner.operation
        yield from _operations(inner.operation)


def test_a_gpu_has_no_more_conditionals_and_transposes(compiled, for_gpu):
  *_, bounds = compiled
  counts = collections.Counter()
  for operation in _operations(for_gpu.compiler_ir("stablehlo").operation):
    counts[operation.name] += 1
    if operation.name == "stablehlo.case" and len(operation.regions) > 1:
      # What depends on the platform alone is a constant.
      index = getattr(operation.operands[0].owner, "name", None)
      counts["conditional"] += index != "stablehlo.constant"
  assert counts["conditional"] <= bounds.conditionals
  assert counts["stablehlo.transpose"] <= bounds.transposes


def test_other_architectures_run_the_same_program_and_move_nothing(compiled):
  made, program, *_ = compiled
  arguments = made.arguments
  for number in range(1, 4):
    # A program that is compiled refuses what would need another one.
    with jax.transfer_guard("disallow"):
      result = jax.block_until_ready(program(*arguments))
    arguments = made.after(number, arguments, result)
