"""The controller against the reference numbers."""

from collections.abc import Iterator, Mapping
import functools

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
    "prediction": jax.jit(controller.predict)(params, embedding),
    "teacher_forced_log_probs": log_probs,
    **_loss(controller, params, tokens, arrays["loss_target"]),
  }
  for output, value in ours.items():
    yield compare(case, output, value, arrays[output])
  yield _check_tokens(
    "greedy_reconstruction",
    controller,
    params,
    [outputs],
    [arrays["greedy_reconstruction"]],
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
    batch = fit.Batch(tokens, target, weights)
    return fit.loss(params, batch, controller=controller, trade_off=0.8)[0]

  loss, gradients = jax.jit(jax.value_and_grad(total))(params)
  squares = (np.sum(np.square(x)) for x in jax.tree.leaves(gradients))
  return {"loss": loss, "grad_global_norm": np.sqrt(sum(squares))}


def _ascent(case, arrays, controller, params, outputs):
  step_sizes = jnp.asarray(arrays["etas"], jnp.float32)
  ascend = functools.partial(ascent.ascend, controller=controller)
  moved = jax.jit(ascend)(params, outputs, step_sizes)
  reference = arrays["ascent_encoder_outputs"]
  yield compare(case, "ascent_encoder_outputs", moved, reference)
  # One step size after the other, by the program that is there already.
  yield _check_tokens(
    "ascent_tokens", controller, params, moved, arrays["ascent_tokens"]
  )


def _check_tokens(output, controller, params, points, reference) -> Check:
  """Greedy tokens, where the better of two equally good ones is either.

  The error is the largest difference of log-probabilities at the first token
  of a sequence that differs, given the tokens before it.

  Args:
    output: the name of the check.
    controller: the model.
    params: its parameters.
    points: encoder outputs, each [B, T, H].
    reference: tokens, for each of the points [B, L].
  """
  gaps = [
    _gaps(controller, params, outputs, tokens.astype(np.int32))
    for outputs, tokens in zip(points, reference, strict=True)
  ]
  largest = np.max(np.abs(np.concatenate(gaps)), initial=0.0)
  return Check(output, float(largest), TIE)


def _gaps(controller, params, outputs, reference) -> np.ndarray:
  """One for each sequence that differs."""
  found = _decode(params, outputs, reference, controller=controller)
  ours, log_probs = map(np.asarray, found)
  rows = np.flatnonzero((ours != reference).any(axis=-1))
  first = (ours != reference).argmax(axis=-1)[rows]
  at = log_probs[rows, first]
  row = np.arange(len(rows))
  return at[row, ours[rows, first]] - at[row, reference[rows, first]]


@functools.partial(jax.jit, static_argnames="controller")
def _decode(params, outputs, reference, *, controller: Controller):
  """Greedy tokens, and the log-probabilities after the reference's tokens."""
  embedding = embed(outputs)
  return (
    controller.greedy_decode(params, outputs, embedding),
    controller.decode(params, reference, outputs, embedding),
  )
