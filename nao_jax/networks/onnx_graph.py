"""Translation of a function to an ONNX graph, operation by operation.

Networks consist of few primitives of jax, each of which has a counterpart in
ONNX; loops and random numbers have none here. (jax2onnx translates many more,
but the releases of it that allow this package's orbax refuse convolutions of
maps [C, H, W, B] and functions with a backward pass of their own.)
"""

from collections.abc import Callable, Sequence
import dataclasses
import math
from typing import Any

import jax
from jax.extend import core
import numpy as np

# Read by onnxruntime since 1.15.
_OPSET, _FORMAT = 18, 9
# Primitives that are one operation of ONNX on the same operands.
_SAME = {
  "abs": "Abs",
  "add": "Add",
  "add_any": "Add",
  "div": "Div",
  "eq": "Equal",
  "exp": "Exp",
  "ge": "GreaterOrEqual",
  "gt": "Greater",
  "le": "LessOrEqual",
  "log": "Log",
  "logistic": "Sigmoid",
  "lt": "Less",
  "max": "Max",
  "min": "Min",
  "mul": "Mul",
  "neg": "Neg",
  "sqrt": "Sqrt",
  "sub": "Sub",
  "tanh": "Tanh",
}
# Primitives that stand for a function.
_CALLS = ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call")
# The number of the platform, which is not known; see `_run`.
_PLATFORM = object()


class Untranslatable(ValueError):
  """Exception of functions with operations that have no counterpart.

  Attributes:
    operations: names of the operations.
  """

  def __init__(self, operations: Sequence[str]):
    super().__init__(", ".join(operations))
    self.operations = tuple(operations)


def translate(
  function: Callable[[jax.Array], jax.Array],
  example: jax.ShapeDtypeStruct,
  names: tuple[str, str],
) -> bytes:
  """Translates a function of one batched array; needs the package onnx.

  Args:
    function: maps [B, ...] to [B, ...], for any B; its constants, such as
      weights, become part of the graph.
    example: shape and type of one example, [...].
    names: names of the argument and of the result.

  Returns:
    The content of an .onnx file.

  Raises:
    Untranslatable: the function has operations without a counterpart.
  """
  (batch,) = jax.export.symbolic_shape("batch")
  traced = jax.make_jaxpr(function)(
    jax.ShapeDtypeStruct((batch, *example.shape), example.dtype)
  )
  graph = _Graph(names[0])
  (result,) = _run(graph, traced.jaxpr, traced.consts, [names[0]])
  if graph.unknown:
    raise Untranslatable(sorted(graph.unknown))
  graph.add("Identity", result, name=names[1])
  return graph.serialise(names, (*traced.in_avals, *traced.out_avals))


@dataclasses.dataclass
class _Graph:
  """Graph in the making.

  Attributes:
    argument: name of the argument, whose first axis is the batch.
    nodes: the operations, in order.
    constants: {name: array}.
    unknown: names of primitives without a counterpart.
  """

  argument: str
  nodes: list[Any] = dataclasses.field(default_factory=list)
  constants: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
  unknown: set[str] = dataclasses.field(default_factory=set)

  def add(self, operation: str, *inputs: Any, name: str = "", **given) -> str:
    """Adds an operation on names and arrays; returns its result's name."""
    from onnx import helper

    result = name or f"v{len(self.nodes)}"
    names = [self._name(value) for value in inputs]
    self.nodes.append(helper.make_node(operation, names, [result], **given))
    return result

  def _name(self, value: Any) -> str:
    if isinstance(value, str):
      return value
    name = f"c{len(self.constants)}"
    self.constants[name] = np.asarray(value)
    return name

  def reshape(self, x: Any, shape: tuple) -> str:
    """Reshapes; at most one axis may depend on the batch."""
    sizes = [size if isinstance(size, int) else -1 for size in shape]
    if sizes.count(-1) > 1:
      self.unknown.add("reshape to several axes of unknown size")
    return self.add("Reshape", x, np.int64(sizes))

  def expand(self, x: Any, shape: tuple) -> str:
    """Broadcasts; an axis may be the batch."""
    batch = self.add("Slice", self.add("Shape", self.argument), *_ints(0, 1, 0))
    sizes = [
      np.int64([size]) if isinstance(size, int) else batch for size in shape
    ]
    if any(not isinstance(x, int) and str(x) != "batch" for x in shape):
      self.unknown.add("broadcast_in_dim to a multiple of the batch")
    return self.add("Expand", x, self.add("Concat", *sizes, axis=0))

  def serialise(self, names: tuple[str, str], shapes: tuple) -> bytes:
    """Returns the file, without operations whose results are not used."""
    import onnx
    from onnx import helper, numpy_helper

    needed, nodes = {names[1]}, []
    for node in reversed(self.nodes):
      if node.output[0] in needed:
        needed |= {*node.input}
        nodes.append(node)
    argument, result = (
      helper.make_tensor_value_info(name, _type(x), _sizes(x))
      for name, x in zip(names, shapes, strict=True)
    )
    constants = [
      numpy_helper.from_array(value, name)
      for name, value in self.constants.items()
      if name in needed
    ]
    model = helper.make_model(
      helper.make_graph(
        nodes[::-1], "nao_jax", [argument], [result], constants
      ),
      producer_name="nao_jax",
      opset_imports=[helper.make_opsetid("", _OPSET)],
      ir_version=_FORMAT,
    )
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _type(x: Any) -> int:
  from onnx import helper

  return helper.np_dtype_to_tensor_dtype(np.dtype(x.dtype))


def _sizes(x: Any) -> list[int | str]:
  return [size if isinstance(size, int) else str(size) for size in x.shape]


def _ints(*values: int) -> list[np.ndarray]:
  return [np.int64([value]) for value in values]


def _run(graph: _Graph, jaxpr: core.Jaxpr, consts: list, inputs: list) -> list:
  """Adds a jaxpr's equations; returns its results, names or arrays.

  Code for several platforms is a `cond` on the platform's number. The last
  branch is for any platform, and is taken.
  """
  known = dict(zip(jaxpr.constvars, consts, strict=True))
  known |= zip(jaxpr.invars, inputs, strict=True)

  def value(variable):
    if isinstance(variable, core.Literal):
      return np.asarray(variable.val, variable.aval.dtype)
    return known[variable]

  for equation in jaxpr.eqns:
    found = _results(graph, equation, [*map(value, equation.invars)])
    known |= zip(equation.outvars, found, strict=True)
  return [*map(value, jaxpr.outvars)]


def _results(graph: _Graph, equation: core.JaxprEqn, inputs: list) -> list:
  """Adds one equation; returns its results."""
  name, params = equation.primitive.name, equation.params
  if name in _CALLS:
    inner = params.get("jaxpr") or params["call_jaxpr"]
    return _run(graph, inner.jaxpr, inner.consts, inputs)
  if any(x is _PLATFORM for x in inputs):
    if name != "cond":
      return [_PLATFORM]
    branch = params["branches"][-1]
    return _run(graph, branch.jaxpr, branch.consts, inputs[1:])
  if name == "platform_index":
    return [_PLATFORM]
  if _is_index(equation) and not any(isinstance(x, str) for x in inputs):
    return [np.asarray(equation.primitive.bind(*inputs, **params))]
  if name in _SAME:
    return [graph.add(_SAME[name], *inputs)]
  if name not in _RULES:
    graph.unknown.add(name)
    return [""] * len(equation.outvars)
  return [_RULES[name](graph, equation, *inputs)]


def _is_index(equation: core.JaxprEqn) -> bool:
  """Returns whether a result is whole numbers or booleans, of known shape."""
  result, *others = equation.outvars
  return (
    not others
    and result.aval.dtype.kind in "biu"
    and all(isinstance(size, int) for size in result.aval.shape)
  )


def _shaped(graph: _Graph, equation: core.JaxprEqn, x: Any) -> str:
  return graph.reshape(x, equation.outvars[0].aval.shape)


def _broadcast(graph: _Graph, equation: core.JaxprEqn, x: Any) -> str:
  shape = equation.outvars[0].aval.shape
  middle = [1] * len(shape)
  axes = equation.params["broadcast_dimensions"]
  for axis, size in zip(axes, equation.invars[0].aval.shape, strict=True):
    middle[axis] = size
  x = graph.reshape(x, tuple(middle))
  return x if tuple(middle) == shape else graph.expand(x, shape)


def _transpose(graph: _Graph, equation: core.JaxprEqn, x: Any) -> str:
  return graph.add("Transpose", x, perm=equation.params["permutation"])


def _slice(graph: _Graph, equation: core.JaxprEqn, x: Any) -> str:
  params, sizes = equation.params, equation.invars[0].aval.shape
  steps = params["strides"] or (1,) * len(sizes)
  rows = [
    (start, limit, axis, step)
    for axis, (start, limit, step, size) in enumerate(
      zip(params["start_indices"], params["limit_indices"], steps, sizes,
          strict=True)
    )
    if (start, step) != (0, 1) or (limit is not size and limit != size)
  ]  # fmt: skip
  if not rows:
    return graph.add("Identity", x)
  if not all(isinstance(number, int) for row in rows for number in row):
    graph.unknown.add("slice of the batch")
    return ""
  return graph.add("Slice", x, *np.int64(rows).T)


def _pad(graph: _Graph, equation: core.JaxprEqn, x: Any, value: Any) -> str:
  low, high, inner = zip(*equation.params["padding_config"], strict=True)
  if any(inner):
    graph.unknown.add("pad between elements")
  return graph.add("Pad", x, np.int64([*low, *high]), value)


def _gather(graph: _Graph, equation: core.JaxprEqn, x: Any, at: Any) -> str:
  """Adds `x[:, 1:, 1:]` or `x[:, ::2, ::2]`, with other axes whole."""
  params, shape = equation.params, equation.invars[0].aval.shape
  numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
  picked, indexed = numbers.collapsed_slice_dims, numbers.start_index_map
  others = [axis for axis in range(len(shape)) if axis not in indexed]
  if not isinstance(at, str) and all(sizes[x] == shape[x] for x in others):
    if at.ndim == 1 and not picked:
      ends = at + np.int64([sizes[axis] for axis in indexed])
      return graph.add("Slice", x, np.int64(at), ends, np.int64(indexed))
    if picked == indexed:
      rows = graph.add("Transpose", x, perm=[*picked, *others])
      found = graph.add("GatherND", rows, np.int64(at))
      kept = numbers.offset_dims
      rank = len(equation.outvars[0].aval.shape)
      order = [axis for axis in range(rank) if axis not in kept]
      order = np.argsort([*order, *kept]).tolist()
      return graph.add("Transpose", found, perm=order)
  graph.unknown.add("gather of parts")
  return ""


def _concatenate(graph: _Graph, equation: core.JaxprEqn, *parts: Any) -> str:
  return graph.add("Concat", *parts, axis=equation.params["dimension"])


def _reduce(operation: str) -> Callable[..., str]:
  def reduce(graph: _Graph, equation: core.JaxprEqn, x: Any) -> str:
    axes = np.int64(equation.params["axes"])
    return graph.add(operation, x, axes, keepdims=0)

  return reduce


def _cast(graph: _Graph, equation: core.JaxprEqn, x: Any) -> str:
  return graph.add("Cast", x, to=_type(equation.outvars[0].aval))


def _rsqrt(graph: _Graph, equation: core.JaxprEqn, x: Any) -> str:
  return graph.add("Reciprocal", graph.add("Sqrt", x))


def _power(graph: _Graph, equation: core.JaxprEqn, x: Any) -> str:
  exponent = np.asarray(equation.params["y"], equation.invars[0].aval.dtype)
  return graph.add("Pow", x, exponent)


def _square(graph: _Graph, equation: core.JaxprEqn, x: Any) -> str:
  return graph.add("Mul", x, x)


def _select(graph: _Graph, equation: core.JaxprEqn, which: Any, *cases) -> str:
  if equation.invars[0].aval.dtype != bool:
    graph.unknown.add("select_n by numbers")
  return graph.add("Where", which, cases[-1], cases[0])


def _product(graph: _Graph, equation: core.JaxprEqn, x: Any, y: Any) -> str:
  (left, right), batched = equation.params["dimension_numbers"]
  ranks = [len(variable.aval.shape) for variable in equation.invars]
  if ranks != [2, 2] or any(batched) or len(left) != 1:
    graph.unknown.add("dot_general of other than two matrices")
    return ""
  if left[0] == 0:
    x = graph.add("Transpose", x, perm=(1, 0))
  if right[0] == 1:
    y = graph.add("Transpose", y, perm=(1, 0))
  return graph.add("MatMul", x, y)


def _convolve(graph: _Graph, equation: core.JaxprEqn, x: Any, y: Any) -> str:
  params = equation.params
  if math.prod(params["lhs_dilation"]) * params["batch_group_count"] != 1:
    graph.unknown.add("conv_general_dilated of spread maps")
  maps, kernel, result = params["dimension_numbers"]
  low, high = zip(*params["padding"], strict=True)
  found = graph.add(
    "Conv",
    graph.add("Transpose", x, perm=maps),
    graph.add("Transpose", y, perm=kernel),
    strides=params["window_strides"],
    dilations=params["rhs_dilation"],
    pads=[*low, *high],
    group=params["feature_group_count"],
  )
  return graph.add("Transpose", found, perm=np.argsort(result).tolist())


_RULES = {
  "broadcast_in_dim": _broadcast,
  "concatenate": _concatenate,
  "conv_general_dilated": _convolve,
  "convert_element_type": _cast,
  "dot_general": _product,
  "expand_dims": _shaped,
  "gather": _gather,
  "integer_pow": _power,
  "pad": _pad,
  "reduce_max": _reduce("ReduceMax"),
  "reduce_min": _reduce("ReduceMin"),
  "reduce_sum": _reduce("ReduceSum"),
  "reshape": _shaped,
  "rsqrt": _rsqrt,
  "select_n": _select,
  "slice": _slice,
  "square": _square,
  "squeeze": _shaped,
  "transpose": _transpose,
}
