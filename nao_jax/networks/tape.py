"""Execution of a cell given as data, with a hand-written backward pass.

The states of a cell are in one buffer. A loop runs the cell's branches, each by
a `lax.switch` over the operations, and adds the results to the buffer in place.
Nodes never overwrite each other, so the final buffer contains the input of
every branch, which is all that the backward pass needs: it is the reversed
loop, which recomputes each operation from its stored input. Automatic
differentiation of the loop would save the whole buffer at every branch.

A branch may carry a memory from step to step (BatchNorm's running statistics),
which the loop takes and returns updated.

Shapes: S states, E branches, maps [C, H, W, B]. NAO's cells of N nodes have S =
N + 2 states (two inputs, then the nodes) and E = 2 N branches.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from nao_jax.networks import convolutions

# A function of a map [C, H, W, B] and this branch's parameters and memory,
# which returns a map and the new memory. Memories receive no gradient.
Operation = Callable[[jax.Array, Any, Any], tuple[jax.Array, Any]]


class Plan(NamedTuple):
  """The branches to run and their inputs: all int32, all data.

  Attributes:
    order: [E], the branches in the order in which they run.
    count: [], number of branches to run.
    op: [E], index of the branch's operation.
    source: [E], index of the state that the branch reads.
    target: [E], index of the state that the branch's output is added to.
  """

  order: jax.Array
  count: jax.Array
  op: jax.Array
  source: jax.Array
  target: jax.Array


def run_cell(
  operations: Callable[[int], tuple[Operation, ...]],
  inputs: jax.Array,
  shrunk: jax.Array | None,
  weights: Callable[[int], Any],
  memory: Any,
  masks: jax.Array | None,
  rows: jax.Array,
) -> tuple[jax.Array, Any]:
  """Runs all branches of a cell.

  Args:
    operations: the operations by stride, in the order of the op set.
    inputs: [2, C, H, W, B].
    shrunk: [2, C, H / 2, W / 2, B], the inputs as they appear among the states
      of a reduction cell; its branches that read an input have stride 2. None
      for a normal cell.
    weights: the weights of `run_branches` by stride. Branches with stride 1
      have weights of the same shapes in reduction and in normal cells, and so
      share their trace.
    memory: see `run_branches`.
    masks: see `run_branches`.
    rows: int32 [N, 4], the cell.

  Returns:
    The states [S, C, H', W', B], and the updated memory.
  """
  plan = _plan(rows)
  if shrunk is None:
    states = _append_nodes(inputs, len(rows))
  else:
    # Strided branches read only the inputs, so they can run first.
    strided, plan = _split(plan)
    states = _append_nodes(shrunk, len(rows))
    states, memory = run_branches(
      operations(2), inputs, states, weights(2), memory, masks, strided
    )
  return run_branches(
    operations(1), None, states, weights(1), memory, masks, plan
  )


def _plan(rows) -> Plan:
  branches = 2 * len(rows)
  source, op = rows.reshape(branches, 2).T
  order, target = jnp.arange(branches), 2 + jnp.arange(branches) // 2
  return Plan(order, jnp.int32(branches), op, source, target)


def _split(plan: Plan) -> tuple[Plan, Plan]:
  """Splits the plan into the branches that read an input, and the others."""
  order = jnp.argsort(plan.source >= 2, stable=True)
  count = jnp.sum(plan.source < 2)
  return (
    plan._replace(order=order, count=count),
    plan._replace(order=jnp.roll(order, -count), count=plan.count - count),
  )


def _append_nodes(inputs, nodes: int):
  """Pads [2, C, H, W, B] to [2 + nodes, C, H, W, B] with zero nodes."""
  return jnp.pad(inputs, ((0, nodes), *((0, 0),) * 4))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
@functools.partial(jax.jit, static_argnums=0)
def run_branches(
  operations: tuple[Operation, ...],
  source: jax.Array | None,
  states: jax.Array,
  weights: Any,
  memory: Any,
  masks: jax.Array | None,
  plan: Plan,
) -> tuple[jax.Array, Any]:
  """Adds the output of each branch to the state of its node.

  Args:
    operations: the operations that `plan.op` indexes. Hashable, so that equal
      cells share their trace.
    source: [2, C, 2H, 2W, B], the maps that the branches read; None if they
      read `states` (whose nodes must then come before their readers).
    states: [S, C, H, W, B].
    weights: for each operation, a pytree of its parameters with leading axis E.
    memory: a pytree with leading axis E, the memory of each branch; () for
      none.
    masks: [E, B], factors on the output of each branch (drop-path), or None.
    plan: the architecture.

  Returns:
    The states [S, C, H, W, B], with each branch added to its target, and the
    memory, updated where a branch has run.
  """

  def run(i, carry):
    states, memory = carry
    branch = plan.order[i]
    x = (states if source is None else source)[plan.source[branch]]
    choices = [
      lambda x, own, f=f, bank=bank: f(x, take(bank, branch), own)
      for f, bank in zip(operations, weights, strict=True)
    ]
    y, own = lax.switch(plan.op[branch], choices, x, take(memory, branch))
    states = states.at[plan.target[branch]].add(_masked(y, masks, branch))
    return states, put(memory, branch, own)

  return lax.fori_loop(0, plan.count, run, (states, memory))


# Jitted, so that equal cells of a network share one trace.
@functools.partial(jax.jit, static_argnums=0)
def _forward(operations, source, states, weights, memory, masks, plan):
  states, after = run_branches(
    operations, source, states, weights, memory, masks, plan
  )
  return (states, after), (source, states, weights, memory, masks, plan)


@functools.partial(jax.jit, static_argnums=0)
def _backward(operations, residuals, gradients):
  source, states, weights, memory, masks, plan = residuals
  state_gradients, _ = gradients
  read = states if source is None else source

  def pull_back(op, x, branch, gradient):
    def output(x, own):
      return operations[op](x, own, take(memory, branch))

    own = take(weights[op], branch)
    _, pullback, _ = jax.vjp(output, x, own, has_aux=True)
    x_gradient, own_gradient = pullback(gradient)
    others = jax.tree.map(
      lambda w: jnp.zeros_like(w, shape=w.shape[1:]), weights
    )
    return x_gradient, (*others[:op], own_gradient, *others[op + 1 :])

  choices = [functools.partial(pull_back, op) for op in range(len(operations))]

  def run(i, carry):
    states, sources, weights = carry
    branch = plan.order[plan.count - 1 - i]
    at = plan.source[branch]
    gradient = _masked(states[plan.target[branch]], masks, branch)
    x_gradient, weight_gradient = lax.switch(
      plan.op[branch], choices, read[at], branch, gradient
    )
    if source is None:
      states = states.at[at].add(x_gradient)
    else:
      sources = sources.at[at].add(x_gradient)
    return states, sources, put(weights, branch, weight_gradient)

  zeros = jax.tree.map(jnp.zeros_like, (source, weights))
  states, sources, weights = lax.fori_loop(
    0, plan.count, run, (state_gradients, *zeros)
  )
  return sources, states, weights, None, None, None


run_branches.defvjp(_forward, _backward)


def take(tree: Any, at: int | jax.Array) -> Any:
  """Returns one slice of every leaf; `at` is not negative."""
  return jax.tree.map(
    lambda leaf: lax.dynamic_index_in_dim(
      leaf, at, keepdims=False, allow_negative_indices=False
    ),
    tree,
  )


def put(tree: Any, at: int | jax.Array, one: Any) -> Any:
  """Returns the tree with one slice of every leaf replaced; `at` >= 0."""
  return jax.tree.map(
    lambda leaf, new: lax.dynamic_update_index_in_dim(
      leaf, new, at, 0, allow_negative_indices=False
    ),
    tree,
    one,
  )


def _masked(x, masks, branch):
  return x if masks is None else x * masks[branch]


@jax.custom_vjp
@jax.jit
def combine(
  states: jax.Array, kernels: jax.Array, loose: jax.Array
) -> jax.Array:
  """Applies ReLU and a 1x1 convolution to a cell's loose ends, and sums them.

  The result equals that of concatenating the loose ends, ReLU and a 1x1
  convolution, at a shape that does not depend on their number; only loose ends
  cost time.

  Args:
    states: [S, C, H, W, B].
    kernels: [S, C, D], one for each state.
    loose: bool [S]; a loose end is a state that no node uses.

  Returns:
    [D, H, W, B].
  """
  order, count = loose_ends(loose)

  def run(i, total):
    at = order[i]
    return total + convolutions.pointwise(jax.nn.relu(states[at]), kernels[at])

  zero = jnp.zeros_like(states, shape=(kernels.shape[-1], *states.shape[2:]))
  return lax.fori_loop(0, count, run, zero)


def loose_ends(loose: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns the indices of loose ends, then of the others; and their number."""
  return jnp.argsort(~loose, stable=True), jnp.sum(loose)


@jax.jit
def _combine_forward(states, kernels, loose):
  return combine(states, kernels, loose), (states, kernels, loose)


@jax.jit
def _combine_backward(residuals, gradient):
  states, kernels, loose = residuals
  order, count = loose_ends(loose)

  def one(state, kernel):
    return convolutions.pointwise(jax.nn.relu(state), kernel)

  def run(i, carry):
    at = order[i]
    _, pullback = jax.vjp(one, states[at], kernels[at])
    return put(carry, at, pullback(gradient))

  zeros = jnp.zeros_like(states), jnp.zeros_like(kernels)
  return *lax.fori_loop(0, count, run, zeros), None


combine.defvjp(_combine_forward, _combine_backward)
