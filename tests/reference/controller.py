"""The controller against the reference numbers."""

from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from nao_jax.controller import ascent, fit
from nao_jax.controller.model import Controller, ControllerConfig, embed
from nao_jax.spaces.space import Space
from tests.reference import formula
from tests.reference.check import Check, compare

# Two tokens whose log-probabilities differ by less are equally good.
TIE = 1e-6


def checks(case: dict, arrays: Mapping[str, np.ndarray]) -> Iterator[Check]:
  """Compares every output of one case.

  Args:
    case: its entry in the JSON file.
    arrays: what the case's arrays hold, by names without the case's.

  Yields:
    A check for each output.
  """
  controller = _controller(case)
  params = _params(controller)
  count = sum(leaf.size for leaf in jax.tree.leaves(params))
  yield compare(case, "params", count, case["params"])
  tokens = jnp.asarray(arrays["tokens"], jnp.int32)
  outputs, embedding = jax.jit(controller.encode)(params, tokens)
  log_probs = jax.jit(controller.decode)(params, tokens, outputs, embedding)
  ours = {
    "encoder_outputs": outputs,
    "embedding": embedding,
    "prediction": controller.predict(params, embedding),
    "teacher_forced_log_probs": log_probs,
    **_loss(controller, params, tokens, arrays["loss_target"]),
  }
  for output, value in ours.items():
    yield compare(case, output, value, arrays[output])
  reconstruction = arrays["greedy_reconstruction"]
  yield _check_tokens(
    "greedy_reconstruction", controller, params, outputs, reconstruction
  )
  yield from _ascent(case, arrays, controller, params, outputs)


def _controller(case: dict) -> Controller:
  """The two-cell space is rebuilt from its sizes: ops are only numbers."""
  nodes = case["length"] // 8
  ops = tuple(range(nodes + 2, case["vocab"]))
  inputs = [tuple(range(1, node + 3)) for node in range(nodes)] * 2
  choices = [
    choice for tokens in inputs for choice in (tokens, ops, tokens, ops)
  ]
  space = Space(
    name=case["case"],
    choices=tuple(choices),
    tokens_per_step=case["length"] // case["encoder_length"],
  )
  sizes = ("embedding", "hidden", "mlp_layers", "mlp_width")
  return Controller(
    space, ControllerConfig(**{size: case[size] for size in sizes})
  )


def _params(controller: Controller):
  """Matrices `[in, out]` are the formula's, transposed; embeddings are not."""

  def fill(path, leaf):
    if leaf.ndim == 1:
      return jnp.asarray(formula.bias(leaf.size))
    if path[-1].key == "embedding":
      return jnp.asarray(formula.weight(leaf.shape))
    return jnp.asarray(formula.weight(leaf.shape[::-1]).T)

  shapes = jax.eval_shape(controller.init, jax.random.key(0))
  return jax.tree_util.tree_map_with_path(fill, shapes)


def _loss(controller, params, tokens, target):
  def total(params):
    weights = jnp.ones(len(tokens))
    return fit.loss(
      params, tokens, target, weights, controller=controller, trade_off=0.8
    )[0]

  loss, gradients = jax.jit(jax.value_and_grad(total))(params)
  squares = jax.tree.map(lambda x: jnp.sum(jnp.square(x)), gradients)
  norm = jnp.sqrt(sum(jax.tree.leaves(squares)))
  return {"loss": loss, "grad_global_norm": norm}


def _ascent(case, arrays, controller, params, outputs):
  step_sizes = jnp.asarray(arrays["etas"], jnp.float32)
  moved = ascent.ascend(params, outputs, step_sizes, controller=controller)
  reference = arrays["ascent_encoder_outputs"]
  yield compare(case, "ascent_encoder_outputs", moved, reference)
  flat = moved.reshape(-1, *outputs.shape[1:])
  tokens = arrays["ascent_tokens"].reshape(len(flat), -1)
  yield _check_tokens("ascent_tokens", controller, params, flat, tokens)


def _check_tokens(output, controller, params, outputs, reference) -> Check:
  """Greedy tokens, where the better of two equally good ones is either.

  The error is the largest difference of log-probabilities at the first token
  of a sequence that differs, given the tokens before it.
  """
  reference = np.asarray(reference, np.int32)
  embedding = embed(outputs)
  ours = jax.jit(controller.greedy_decode)(params, outputs, embedding)
  ours = np.asarray(ours)
  log_probs = np.asarray(
    jax.jit(controller.decode)(params, reference, outputs, embedding)
  )
  rows = np.flatnonzero((ours != reference).any(axis=-1))
  first = (ours != reference).argmax(axis=-1)[rows]
  at = log_probs[rows, first]
  row = np.arange(len(rows))
  gaps = at[row, ours[rows, first]] - at[row, reference[rows, first]]
  return Check(output, float(np.max(np.abs(gaps), initial=0.0)), TIE)
