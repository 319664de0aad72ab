"""The inside of a cell as its own tape: every architecture, one program.

The states of a cell live in one buffer. A loop runs the cell's branches, each
a real branch of the program (`lax.switch`), and adds the result to the buffer
in place. Nodes never overwrite each other, so the final buffer holds the input
of every branch, and it is all that the backward pass needs: the same loop
reversed, which recomputes each operation from its stored input. Automatic
differentiation of the loop would save the whole buffer at every branch.

Shapes: S states (two inputs, then the nodes), E branches (two a node), maps
[C, H, W, B].
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from nao_jax.networks import layers

# (map [C, H, W, B], this branch's parameters) to a map.
Operation = Callable[[jax.Array, Any], jax.Array]


class Plan(NamedTuple):
  """Which branches run, on what: all int32, all data.

  Attributes:
    order: [E], the branches in the order in which they run.
    count: [], how many of them run.
    op: [E], index of the branch's operation.
    source: [E], index of the state that the branch reads.
  """

  order: jax.Array
  count: jax.Array
  op: jax.Array
  source: jax.Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
@functools.partial(jax.jit, static_argnums=0)
def run_branches(
  operations: tuple[Operation, ...], source, states, weights, masks, plan: Plan
) -> jax.Array:
  """Adds the output of each branch to the state of its node.

  Args:
    operations: what `plan.op` indexes. Hashable, so that equal cells share
      their trace.
    source: [2, C, 2H, 2W, B], what the branches read; None if they read
      `states` (whose nodes must then come before their readers).
    states: [S, C, H, W, B].
    weights: pytree with leading axis E, what operations take as parameters.
    masks: [E, B], factors on the output of each branch (drop-path), or None.
    plan: the architecture.

  Returns:
    [S, C, H, W, B]; branch e went to state 2 + e // 2.
  """

  def run(i, states):
    branch = plan.order[i]
    x = (states if source is None else source)[plan.source[branch]]
    choices = [lambda x, f=f: f(x, _take(weights, branch)) for f in operations]
    y = lax.switch(plan.op[branch], choices, x)
    return states.at[_node(branch)].add(_masked(y, masks, branch))

  return lax.fori_loop(0, plan.count, run, states)


# Jitted, so that equal cells of a network share one trace.
@functools.partial(jax.jit, static_argnums=0)
def _forward(operations, source, states, weights, masks, plan):
  states = run_branches(operations, source, states, weights, masks, plan)
  return states, (source, states, weights, masks, plan)


@functools.partial(jax.jit, static_argnums=0)
def _backward(operations, residuals, state_gradients):
  source, states, weights, masks, plan = residuals
  read = states if source is None else source

  def pull_back(operation, x, branch, gradient):
    _, pullback = jax.vjp(operation, x, _take(weights, branch))
    return pullback(gradient)

  choices = [functools.partial(pull_back, f) for f in operations]

  def run(i, carry):
    states, sources, weights = carry
    branch = plan.order[plan.count - 1 - i]
    at = plan.source[branch]
    gradient = _masked(states[_node(branch)], masks, branch)
    x_gradient, weight_gradient = lax.switch(
      plan.op[branch], choices, read[at], branch, gradient
    )
    if source is None:
      states = states.at[at].add(x_gradient)
    else:
      sources = sources.at[at].add(x_gradient)
    weights = jax.tree.map(
      lambda all_, one: all_.at[branch].set(one), weights, weight_gradient
    )
    return states, sources, weights

  zeros = jax.tree.map(jnp.zeros_like, (source, weights))
  states, sources, weights = lax.fori_loop(
    0, plan.count, run, (state_gradients, *zeros)
  )
  return sources, states, weights, None, None


run_branches.defvjp(_forward, _backward)


def _take(weights, branch):
  return jax.tree.map(lambda w: w[branch], weights)


def _node(branch):
  return 2 + branch // 2


def _masked(x, masks, branch):
  return x if masks is None else x * masks[branch]


@jax.custom_vjp
def combine(states, kernels, loose) -> jax.Array:
  """The output of a cell: ReLU, 1x1 convolution and sum over its loose ends.

  Equals concatenation of the loose ends, ReLU and a 1x1 convolution, at a
  shape that does not depend on how many there are; only loose ends cost time.

  Args:
    states: [S, C, H, W, B].
    kernels: [S, C, D], one for each state.
    loose: bool [S]; a loose end is a state that no node uses.

  Returns:
    [D, H, W, B].
  """
  order, count = _loose_ends(loose)

  def run(i, total):
    at = order[i]
    return total + layers.pointwise(jax.nn.relu(states[at]), kernels[at])

  zero = jnp.zeros_like(states, shape=(kernels.shape[-1], *states.shape[2:]))
  return lax.fori_loop(0, count, run, zero)


def _loose_ends(loose):
  return jnp.argsort(~loose, stable=True), jnp.sum(loose)


def _combine_forward(states, kernels, loose):
  return combine(states, kernels, loose), (states, kernels, loose)


def _combine_backward(residuals, gradient):
  states, kernels, loose = residuals
  order, count = _loose_ends(loose)

  def one(state, kernel):
    return layers.pointwise(jax.nn.relu(state), kernel)

  def run(i, carry):
    at = order[i]
    _, pullback = jax.vjp(one, states[at], kernels[at])
    return jax.tree.map(
      lambda all_, one: all_.at[at].set(one), carry, pullback(gradient)
    )

  zeros = jnp.zeros_like(states), jnp.zeros_like(kernels)
  return *lax.fori_loop(0, count, run, zeros), None


combine.defvjp(_combine_forward, _combine_backward)
