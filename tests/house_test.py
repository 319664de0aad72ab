"""The house: imports run one way, and each tool is named in its own room."""

import ast
import graphlib
import os
import pathlib
import re
import subprocess
import sys

import pytest

import nao_jax

ROOT = pathlib.Path(__file__).parents[1]

# A module may import from its own layer and from those below. A folder stands
# for all its modules.
LAYERS = (
  ("experiments", "benchmarks"),
  ("nao_jax.experiment", "nao_jax.final_training", "nao_jax.studies"),
  ("nao_jax.report",),
  ("nao_jax.tasks",),
  ("nao_jax.distributed", "nao_jax.search"),
  ("nao_jax.evaluators", "nao_jax.pool"),
  ("nao_jax.strategies", "nao_jax.training"),
  ("nao_jax.controller", "nao_jax.data", "nao_jax.drawing", "nao_jax.networks"),
  ("nao_jax.objectives", "nao_jax.parallel", "nao_jax.spaces"),
  ("nao_jax.runs",),
  ("nao_jax.settings",),
  ("nao_jax.earlier", "nao_jax.errors", "nao_jax.lazy", "nao_jax.metrics"),
)


def _sources(*folders):
  """{dotted name: text} of every module in these folders."""
  return {
    _name(path): path.read_text(encoding="utf-8")
    for folder in folders
    for path in sorted((ROOT / folder).rglob("*.py"))
  }


def _name(path):
  parts = path.relative_to(ROOT).with_suffix("").parts
  return ".".join(part for part in parts if part != "__init__")


PROJECT = _sources("nao_jax", "experiments", "benchmarks")
# The front door names every room, for type checkers alone, and loads none.
DOOR = PROJECT.pop("nao_jax")


def _is_in(name, place):
  return f"{name}.".startswith(f"{place}.")


def _imports(source):
  """The dotted names a source imports, at its top or inside a function."""
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      # Drivers alone import each other so; the test of it is below.
      place = ["experiments"] * node.level + [node.module] * bool(node.module)
      yield from (f"{'.'.join(place)}.{alias.name}" for alias in node.names)


def _height(name):
  """The layer of a module, counted from below; None: it has none."""
  places = enumerate(reversed(LAYERS))
  heights = (h for h, layer in places if any(_is_in(name, p) for p in layer))
  return next(heights, None)


def test_every_module_has_its_layer():
  assert not {name for name in PROJECT if _height(name) is None}


def test_imports_run_downwards():
  assert not [
    f"{name} imports {imported}"
    for name, source in PROJECT.items()
    for imported in _imports(source)
    if (_height(imported) or 0) > (_height(name) or 0)
  ]


def test_imports_form_no_circle():
  # A package may import its own modules.
  graph = {name: _modules(text) - {name} for name, text in PROJECT.items()}
  graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


def _modules(source):
  """The modules of the project that a source imports or imports from."""
  names = set(_imports(source))
  names |= {name.rpartition(".")[0] for name in names}
  return names & PROJECT.keys()


def _room(name):
  """The package or the module at the top that a module belongs to."""
  top, *inner = name.split(".")
  return ".".join([top, *inner[:1]]) if top == "nao_jax" else top


def _arrows():
  """{room: the rooms that it imports}."""
  arrows = {_room(name): set() for name in PROJECT}
  for name, text in PROJECT.items():
    arrows[_room(name)] |= {_room(other) for other in _modules(text)}
  return {room: others - {room} for room, others in arrows.items()}


def test_the_library_has_few_floors_and_arrows():
  """Drivers and benchmarks add a floor each, and count among the arrows."""
  arrows, floors = _arrows(), {}
  for room in graphlib.TopologicalSorter(arrows).static_order():
    below = (floors[other] for other in arrows[room])
    floors[room] = 1 + max(below, default=0)
  library = [x for room, x in floors.items() if _is_in(room, "nao_jax")]
  assert max(library) <= 11
  assert sum(map(len, arrows.values())) <= 180


MOST_LINES, MOST_LINES_OF_FUNCTION, MOST_ARGUMENTS = 400, 40, 7
# Modules and functions that are longer, or take more.
_LARGE = {"nao_jax.search.loop.run"}


def _nodes(source, *kinds):
  return [
    node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)
  ]


def _is_large(function):
  """True if a function is too long without its docstring, or takes too much."""
  doc = ast.get_docstring(function, clean=False)
  lines = function.end_lineno - function.lineno + 1
  lines -= 0 if doc is None else doc.count("\n") + 1
  given = function.args
  names = [x.arg for x in given.posonlyargs + given.args + given.kwonlyargs]
  count = len(names) - (names[:1] in (["self"], ["cls"]))
  return lines > MOST_LINES_OF_FUNCTION or count > MOST_ARGUMENTS


def _large(name, source):
  """The dotted names of a module and its functions, as far as too large."""
  if source.count("\n") > MOST_LINES:
    yield name
  for function in _nodes(source, ast.FunctionDef, ast.AsyncFunctionDef):
    if _is_large(function):
      yield f"{name}.{function.name}"


def test_files_and_functions_are_short():
  found = {large for item in PROJECT.items() for large in _large(*item)}
  assert found == _LARGE


_RIDDLES = {
  *["What", "Of", "As", "See", "Who", "Where", "How", "Which", "Whether"]
}


def test_docstrings_open_with_a_verb_or_a_noun():
  documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
  everything = PROJECT | _sources("tests") | {"nao_jax": DOOR}
  opened = {
    f"{name}, line {getattr(node, 'lineno', 1)}": text.split()[0].strip(".,:;`")
    for name, source in everything.items()
    for node in _nodes(source, *documented)
    if (text := ast.get_docstring(node))
  }
  assert not {place: word for place, word in opened.items() if word in _RIDDLES}


def test_the_front_door_loads_no_room():
  lines = [x for x in ast.parse(DOOR).body if not isinstance(x, ast.If)]
  names = _imports("\n".join(map(ast.unparse, lines)))
  assert [n for n in names if _is_in(n, "nao_jax")] == ["nao_jax.lazy"]


def test_modules_that_moved_are_found_by_their_old_names():
  with pytest.warns(DeprecationWarning, match=r"now nao_jax\.metrics"):
    assert nao_jax.measures.ACCURACY is nao_jax.metrics.ACCURACY
  for new in nao_jax._MOVED.values():
    assert f"nao_jax.{new}" in PROJECT


def test_the_front_door_names_what_type_checkers_see():
  (seen,) = (x for x in ast.parse(DOOR).body if isinstance(x, ast.If))
  found = {
    alias.asname or alias.name: f"{line.module}.{alias.name}"
    for line in seen.body
    for alias in line.names
  }
  assert found == {
    name: f"nao_jax.{place}" for name, place in nao_jax._NAMES.items()
  }
  assert {*nao_jax.__all__} == {*found}


def test_the_front_door_describes_each_of_its_names():
  for name in nao_jax.__all__:
    assert re.search(rf"^ {{4}}(\w+, )*{name}\b", nao_jax.__doc__, re.MULTILINE)
    assert getattr(nao_jax, name) is not None


def test_every_room_opens_without_a_device():
  """The platform does not exist, so asking for a device would fail."""
  script = (
    "import nao_jax, sys; assert not 'jax' in sys.modules;"
    "nao_jax.spaces.slots.space('one', {'slot': (1, 2)});"
    "[getattr(nao_jax, name) for name in nao_jax.__all__]"
  )
  subprocess.run(
    [sys.executable, "-c", script],
    env=os.environ | {"JAX_PLATFORMS": "none"},
    cwd=ROOT,
    check=True,
  )


def test_drivers_alone_import_each_other_relatively():
  """A wheel has them as nao_jax.experiments, a checkout as experiments, too."""
  relative = {
    name.partition(".")[0]
    for name, source in (PROJECT | _sources("tests")).items()
    for node in ast.walk(ast.parse(source))
    if isinstance(node, ast.ImportFrom) and node.level
  }
  assert relative == {"experiments"}


def test_drivers_are_imported_by_one_name():
  """Under two names their flags would be defined twice."""
  everything = PROJECT | _sources("tests")
  assert not [
    name
    for name, source in everything.items()
    if any(_is_in(x, "nao_jax.experiments") for x in _imports(source))
  ]


def test_the_library_reads_no_flags():
  assert not [
    name
    for name, source in _sources("nao_jax").items()
    if any(_is_in(imported, "absl.flags") for imported in _imports(source))
  ]


def _public(tree):
  """The functions and methods that users may call, as (name, node)."""
  for node in tree.body:
    name = getattr(node, "name", "_")
    if name.startswith("_"):
      continue
    if isinstance(node, ast.ClassDef):
      for inner in node.body:
        if getattr(inner, "name", "_") == "__call__":
          yield f"{name}.__call__", inner
      yield from ((f"{name}.{x}", y) for x, y in _public(node))
    elif isinstance(node, ast.FunctionDef):
      yield name, node


def _untyped(function):
  """Returns the parts of a function's signature that have no type."""
  given = function.args
  every = given.posonlyargs + given.args + given.kwonlyargs
  found = [
    one.arg
    for one in every
    if one.annotation is None and one.arg not in ("self", "cls")
  ]
  return found + ([] if function.returns else ["what it returns"])


def test_public_functions_have_types():
  untyped = {
    f"{module}.{name}": missing
    for module, source in _sources("nao_jax").items()
    for name, function in _public(ast.parse(source))
    if (missing := _untyped(function))
  }
  assert not untyped


def test_only_one_module_says_pmap():
  users = {
    name
    for name, source in PROJECT.items()
    if re.search("pmap|shard_map", source)
  }
  assert users == {"nao_jax.parallel"}


def test_only_one_module_names_ray():
  users = {
    name
    for name, source in PROJECT.items()
    if re.search(r"""import ray|import_module\("ray"\)""", source)
  }
  assert users == {"nao_jax.evaluators.cluster"}


def test_nothing_imports_tensorflow():
  everything = PROJECT | _sources("tests")
  assert not [
    name
    for name, source in everything.items()
    if any(_is_in(imported, "tensorflow") for imported in _imports(source))
  ]


def _calls(tree, name):
  """The calls of a function by this name."""
  return [
    node
    for node in ast.walk(tree)
    if isinstance(node, ast.Call) and ast.unparse(node.func) == name
  ]


def test_databases_are_closed():
  """Their own `with` does not close them, of which Python 3.13 warns."""
  for name, source in (PROJECT | _sources("tests")).items():
    tree = ast.parse(source)
    closing = _calls(tree, "contextlib.closing")
    closed = {id(inner) for call in closing for inner in call.args}
    for call in _calls(tree, "sqlite3.connect"):
      assert id(call) in closed, f"{name}, line {call.lineno}"


# Command lines of other programs, and of drivers as a whole; CSS.
_NOT_FLAGS = {
  "nao_jax.data.images": "prepare_images and tfds build, as commands",
  "nao_jax.data.kjv": "pip install",
  "nao_jax.evaluators.cluster": "ray start",
  "nao_jax.report.inline": "custom properties of CSS",
  "nao_jax.report.search_page": "report, as a command",
  "nao_jax.runs.config_file": "git describe",
}


def test_the_library_names_settings_and_no_flags():
  """The drivers write the flags; see `experiments.settings.in_flags`."""
  found = {
    name
    for name, source in _sources("nao_jax").items()
    if not name.startswith("nao_jax.experiments")
    for node in ast.walk(ast.parse(source))
    if isinstance(node, ast.Constant) and isinstance(node.value, str)
    if re.search(r"(?<![\w-])--[a-z]", node.value)
  }
  assert found == _NOT_FLAGS.keys()
