"""The recurrent language model against a plain loop over its equations.

Shapes: T steps of text, B streams, H width, N nodes, V words.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nao_jax.networks import recurrent
from nao_jax.networks.recurrent import LanguageModelConfig, Masks, Weights
from nao_jax.spaces.rnn import ACTIVATIONS, to_cells
from nao_jax.spaces.rnn import space as rnn_space

# Sums are taken in other orders.
pytestmark = pytest.mark.usefixtures("double_precision")

T, B, H, N, V = 5, 2, 3, 4, 6
TINY = LanguageModelConfig(nodes=N, width=H, vocabulary=V)
CHAIN = list(range(N))
# {name: (cell, steps that count)}; between them every activation in every node
# and every predecessor of every node.
CASES = {
  **{
    f"{name} in a {shape}": (
      np.transpose([predecessors, [a] * N]).astype(np.int32),
      length,
    )
    for a, name in enumerate(ACTIVATIONS)
    for shape, predecessors, length in (
      ("chain", CHAIN, T),
      ("fan", [0] * N, T - 2),
    )
  },
  **{
    f"random {seed}": (
      to_cells(np.asarray(rnn_space(N).sample(jax.random.key(seed), 1))[0]),
      T - seed % 3,
    )
    for seed in range(6)
  },
}
# What the cell reads as input has its gradient in the embedding's and in that
# of the input's rows of W_0.
DIFFERENTIATED = ("embedding", "bias", "first", "nodes", "hidden")


def _sigmoid(x):
  return 1 / (1 + np.exp(-x))


ACTIVATE = {
  "tanh": np.tanh,
  "relu": lambda x: np.maximum(x, 0),
  "sigmoid": _sigmoid,
  "identity": lambda x: x,
}


def _loop_step(weights, cell, x, hidden, masks):
  """One step of text by the equations; x and hidden [B, H] to hidden."""
  joined = np.concatenate([x * masks.input, hidden * masks.hidden], 1)
  c, u = np.split(joined @ weights.first, 2, axis=1)
  states = [hidden + _sigmoid(c) * (np.tanh(u) - hidden)]
  for (p, a), matrix in zip(cell, weights.nodes, strict=True):
    state = states[p]
    c, u = np.split((state * masks.hidden) @ matrix, 2, axis=1)
    activated = ACTIVATE[ACTIVATIONS[a]](u)
    states.append(state + _sigmoid(c) * (activated - state))
  return np.mean(states[1:], axis=0)


def _loop(weights, cell, tokens, hidden, masks):
  """Outputs with and without dropout, their logits, and the last state."""
  raw = []
  for row in tokens:
    x = weights.embedding[row] * masks.words[row][:, None] * masks.embedding
    hidden = _loop_step(weights, cell, x, hidden, masks)
    raw.append(hidden)
  dropped = np.array(raw) * masks.output
  logits = dropped @ weights.embedding.T + weights.bias
  return {
    "raw": np.array(raw),
    "dropped": dropped,
    "logits": logits,
    "hidden": hidden,
  }


@dataclasses.dataclass
class Example:
  """All inputs, float64, and the factors of a weighted sum of the results."""

  weights: Weights
  tokens: np.ndarray
  hidden: np.ndarray
  masks: Masks
  factors: dict[str, np.ndarray]


def _example(seed):
  rng = np.random.default_rng(seed)
  shapes = Weights((V, H), (V,), (2 * H, 2 * H), (N, H, 2 * H))
  masks = Masks((V,), *4 * [(B, H)])
  factors = {"raw": (T, B, H), "dropped": (T, B, H), "logits": (T, B, V)}
  return Example(
    Weights(*(rng.normal(size=shape) for shape in shapes)),
    rng.integers(0, V, (T, B)).astype(np.int32),
    rng.normal(size=(B, H)),
    Masks(*(rng.integers(0, 3, shape) / 1.5 for shape in masks)),
    {
      name: rng.normal(size=shape)
      for name, shape in (factors | {"hidden": (B, H)}).items()
    },
  )


def _weighed(results, factors):
  """One number that all results take part in."""
  return sum((results[name] * factor).sum() for name, factor in factors.items())


def _first(factors, length):
  """The factors of the steps that count; the others are left out."""
  return {
    name: factor if name == "hidden" else factor[:length]
    for name, factor in factors.items()
  }


def _zeroed(factors, length):
  """Sets the factors of the steps from `length` on to 0."""
  zeroed = {name: np.zeros_like(factor) for name, factor in factors.items()}
  for name, factor in _first(factors, length).items():
    zeroed[name][: len(factor)] = factor
  return zeroed


@pytest.fixture(scope="module")
def run(traces):
  """Example, cell, length to results and gradients; compiled once."""

  @jax.jit
  def compiled(weights, hidden, cell, tokens, masks, factors, length):
    traces["model"] += 1

    def objective(weights, hidden):
      outputs = recurrent.apply(weights, cell, tokens, hidden, masks, length)
      results = outputs._asdict()
      results["logits"] = recurrent.logits(weights, outputs.dropped)
      return _weighed(results, factors), results

    gradients, results = jax.grad(objective, (0, 1), has_aux=True)(
      weights, hidden
    )
    return results, gradients[0]._asdict() | {"hidden": gradients[1]}

  def run_example(e, cell, length):
    factors = _zeroed(e.factors, length)
    return compiled(
      e.weights, e.hidden, cell, e.tokens, e.masks, factors, length
    )

  return run_example


@pytest.fixture(scope="module", params=CASES)
def case(request, run):
  """The example, cell and length; then the outputs of the model."""
  cell, length = CASES[request.param]
  example = _example(list(CASES).index(request.param))
  return example, cell, length, *run(example, cell, length)


def test_the_cases_have_every_predecessor_and_activation_of_every_node():
  cells = [cell for cell, _ in CASES.values()]
  for node, rows in enumerate(np.swapaxes(cells, 0, 1)):
    assert set(rows[:, 0]) == set(range(node + 1))
    assert set(rows[:, 1]) == set(range(len(ACTIVATIONS)))


@pytest.mark.parametrize("result", ["raw", "dropped", "logits", "hidden"])
def test_the_model_is_the_loop_over_its_equations(case, result):
  e, cell, length, found, _ = case
  # The loop ends where steps no longer count: the state is the last that did.
  expected = _loop(e.weights, cell, e.tokens[:length], e.hidden, e.masks)
  ours = found[result] if result == "hidden" else found[result][:length]
  np.testing.assert_allclose(ours, expected[result], rtol=0, atol=1e-12)


def _numerical(function, x, step=1e-5):
  """Central differences of a number with respect to each element."""
  gradient = np.zeros_like(x)
  for index in np.ndindex(x.shape):
    up, down = x.copy(), x.copy()
    up[index] += step
    down[index] -= step
    gradient[index] = (function(up) - function(down)) / (2 * step)
  return gradient


@pytest.mark.parametrize("name", DIFFERENTIATED)
def test_gradients_are_the_differences_of_the_loop(case, name):
  e, cell, length, _, gradients = case

  def value(x):
    weights, hidden = e.weights, e.hidden
    if name == "hidden":
      hidden = x
    else:
      weights = weights._replace(**{name: x})
    results = _loop(weights, cell, e.tokens[:length], hidden, e.masks)
    return _weighed(results, _first(e.factors, length))

  before = e.hidden if name == "hidden" else getattr(e.weights, name)
  expected = _numerical(value, before)
  assert np.abs(expected).max() > 0.01
  np.testing.assert_allclose(gradients[name], expected, rtol=1e-6, atol=1e-7)


def test_words_after_the_length_change_nothing(run):
  e, (cell, _) = _example(0), CASES["random 0"]
  for length in (1, 3):
    tokens = e.tokens.copy()
    tokens[length:] = (tokens[length:] + 1) % V
    one = run(e, cell, length)
    other = run(dataclasses.replace(e, tokens=tokens), cell, length)
    jax.tree.map(np.testing.assert_array_equal, one[1], other[1])
    state = one[0]["hidden"]
    np.testing.assert_array_equal(state, other[0]["hidden"])
    np.testing.assert_array_equal(state, one[0]["raw"][length - 1])


def test_a_window_without_steps_gives_back_the_state_and_its_gradient(run):
  e, (cell, _) = _example(1), CASES["random 1"]
  results, gradients = run(e, cell, 0)
  np.testing.assert_array_equal(results["hidden"], e.hidden)
  np.testing.assert_array_equal(gradients["hidden"], e.factors["hidden"])
  assert not np.any(gradients["nodes"])
  assert not np.any(gradients["first"])


def test_without_masks_and_length_nothing_is_dropped_or_left_out():
  e, (cell, _) = _example(2), CASES["random 2"]
  ones = Masks(*(np.ones_like(mask) for mask in e.masks))
  expected = _loop(e.weights, cell, e.tokens, e.hidden, ones)
  weights = jax.tree.map(jnp.asarray, e.weights)
  found = recurrent.apply(weights, jnp.asarray(cell), e.tokens, e.hidden)
  for name, ours in found._asdict().items():
    np.testing.assert_allclose(ours, expected[name], rtol=0, atol=1e-12)


def test_the_state_handed_on_makes_two_windows_one(run):
  e, (cell, _) = _example(3), CASES["random 3"]
  whole, _ = run(e, cell, T)
  first, _ = run(e, cell, 2)
  tokens = np.roll(e.tokens, -2, 0)
  rest = dataclasses.replace(e, tokens=tokens, hidden=first["hidden"])
  second, _ = run(rest, cell, T - 2)
  np.testing.assert_allclose(second["hidden"], whole["hidden"], rtol=1e-12)
  raw = np.concatenate([first["raw"][:2], second["raw"][: T - 2]])
  np.testing.assert_allclose(raw, whole["raw"], rtol=1e-12)


def test_every_cell_and_length_runs_the_same_program(run, traces):
  for cell, length in CASES.values():
    run(_example(0), cell, length)
  assert traces["model"] == 1


@pytest.mark.parametrize("nodes", [1, 4, 11])
def test_the_bank_has_one_row_for_each_choice_of_a_node(nodes):
  rows = []
  for node in range(nodes):
    for predecessor in range(node + 1):
      for activation in range(len(ACTIVATIONS)):
        cell = np.zeros((nodes, 2), np.int32)
        cell[node] = predecessor, activation
        rows.append(int(recurrent.bank_rows(cell)[node]))
  assert sorted(rows) == [*range(2 * nodes * (nodes + 1))]
  config = dataclasses.replace(TINY, nodes=nodes)
  shapes = _shapes(config, shared=True)
  assert shapes.nodes.shape == (len(rows), H, 2 * H)


def test_rows_of_a_batch_of_cells_are_those_of_each():
  cells = to_cells(np.asarray(rnn_space(N).sample(jax.random.key(0), 3)))
  rows = recurrent.bank_rows(cells)
  assert rows.shape == (3, N)
  for found, cell in zip(rows, cells, strict=True):
    np.testing.assert_array_equal(found, recurrent.bank_rows(cell))
    np.testing.assert_array_equal(
      found, jax.jit(recurrent.bank_rows)(jnp.asarray(cell))
    )


def test_a_cell_of_the_shared_model_is_the_model_of_its_matrices(run):
  e = _example(4)
  matrices = {
    (node, p, a): np.random.default_rng([node, p, a]).normal(size=(H, 2 * H))
    for node in range(N)
    for p in range(node + 1)
    for a in range(len(ACTIVATIONS))
  }
  bank = np.zeros((len(matrices), H, 2 * H))
  for (node, *choice), matrix in matrices.items():
    cell = np.zeros((N, 2), np.int32)
    cell[node] = choice
    bank[recurrent.bank_rows(cell)[node]] = matrix
  for cell, _ in CASES.values():
    own = np.stack([matrices[i, *row] for i, row in enumerate(cell.tolist())])
    chosen = recurrent.choose(e.weights._replace(nodes=jnp.asarray(bank)), cell)
    expected, _ = run(_with(e, e.weights._replace(nodes=own)), cell, T)
    found, _ = run(_with(e, chosen), cell, T)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def _with(example, weights):
  return dataclasses.replace(example, weights=weights)


def test_only_the_chosen_matrices_of_a_shared_model_have_a_gradient():
  shared = recurrent.init(jax.random.key(0), TINY, shared=True)
  cell = CASES["random 0"][0]

  def total(shared):
    return jnp.sum(recurrent.choose(shared, cell).nodes ** 2)

  gradient = jax.grad(total)(shared)
  used = np.flatnonzero(np.any(gradient.nodes, (1, 2)))
  assert used.tolist() == sorted(recurrent.bank_rows(cell).tolist())


def _shapes(config, *, shared=False):
  function = functools.partial(recurrent.init, config=config, shared=shared)
  return jax.eval_shape(function, jax.random.key(0))


@pytest.mark.parametrize(
  ("width", "vocabulary", "parameters"),
  [(850, 10_000, 27_295_000), (700, 33_278, 36_067_878)],
)
def test_published_sizes_have_the_published_number_of_parameters(
  width, vocabulary, parameters
):
  config = LanguageModelConfig(width=width, vocabulary=vocabulary)
  assert config.parameters == parameters
  assert sum(x.size for x in _shapes(config)) == parameters


def test_first_weights_are_uniform_within_the_range_and_independent():
  config = dataclasses.replace(TINY, width=20, vocabulary=50)
  first = recurrent.init(jax.random.key(0), config)
  assert not np.any(first.bias)
  for leaf in (first.embedding, first.first, first.nodes):
    assert leaf.dtype == jnp.float32
    assert np.abs(leaf).max() == pytest.approx(recurrent.INIT_RANGE, rel=0.01)
    expected = recurrent.INIT_RANGE / np.sqrt(3)
    assert np.std(leaf) == pytest.approx(expected, rel=0.05)
    assert len(np.unique(leaf)) > 0.99 * leaf.size
  assert not np.array_equal(first.first[:20], first.nodes[0])
  other = recurrent.init(jax.random.key(1), config)
  assert not np.array_equal(first.nodes, other.nodes)


@pytest.fixture(scope="module")
def large_masks():
  rates = Masks(0.1, 0.2, 0.75, 0.25, 0.5)
  config = LanguageModelConfig(
    width=80,
    vocabulary=8_000,
    word_dropout=rates.words,
    **{
      f"{name}_dropout": getattr(rates, name)
      for name in ("embedding", "input", "hidden", "output")
    },
  )
  return rates, recurrent.draw_masks(jax.random.key(0), config, 100)


def test_masks_drop_at_their_rates_and_keep_the_mean(large_masks):
  rates, masks = large_masks
  assert masks.words.shape == (8_000,)
  assert {mask.shape for mask in masks[1:]} == {(100, 80)}
  for rate, mask in zip(rates, masks, strict=True):
    kept = mask[mask > 0]
    np.testing.assert_allclose(kept, 1 / (1 - rate), rtol=1e-6)
    assert mask.mean() == pytest.approx(1, abs=0.08)
    assert kept.size / mask.size == pytest.approx(1 - rate, abs=0.02)


def test_masks_of_different_places_are_drawn_apart(large_masks):
  _, masks = large_masks
  kept = [np.ravel(mask > 0) for mask in masks]
  correlation = np.corrcoef(kept) - np.eye(len(kept))
  assert np.abs(correlation).max() < 0.06


def test_nothing_is_drawn_where_nothing_is_dropped():
  rates = dict.fromkeys(
    (f"{name}_dropout" for name in ("output", "hidden", "input", "embedding")),
    0.0,
  )
  config = dataclasses.replace(TINY, **rates)
  masks = recurrent.draw_masks(jax.random.key(0), config, B)
  assert masks == Masks()
  words = dataclasses.replace(config, word_dropout=0.5)
  masks = recurrent.draw_masks(jax.random.key(0), words, B)
  assert masks.words.shape == (V,)
  assert masks[1:] == (None,) * 4


def test_the_same_features_are_dropped_at_all_steps(run):
  example, (cell, _) = _example(5), CASES["random 5"]
  config = dataclasses.replace(TINY, word_dropout=0.3)
  masks = recurrent.draw_masks(jax.random.key(3), config, B)
  results, _ = run(dataclasses.replace(example, masks=masks), cell, T)
  dropped = np.asarray(results["dropped"] == 0)
  assert 0 < dropped[0].sum() < dropped[0].size
  np.testing.assert_array_equal(dropped, np.broadcast_to(dropped[0], (T, B, H)))
