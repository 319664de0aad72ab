"""What keeps programs fast, without a clock: size, memory, copies."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import counting
from nao_jax.networks.recurrent import LanguageModelConfig
from nao_jax.spaces import rnn
from nao_jax.training import recurrent
from nao_jax.training.language import TextTrainConfig

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
