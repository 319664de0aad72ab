"""The house: imports run one way, and each tool is named in its own room."""

import ast
import graphlib
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]

# A module may import from its own layer and from those below. A folder stands
# for all its modules.
LAYERS = (
  ("experiments", "benchmarks"),
  ("nao_jax.cnn_use",),
  (
    "nao_jax.cnn_search",
    "nao_jax.cnn_training",
    "nao_jax.comparison",
    "nao_jax.controller_study",
    "nao_jax.rnn_search",
    "nao_jax.rnn_training",
  ),
  ("nao_jax.outcome", "nao_jax.search_checks"),
  (
    "nao_jax.presets",
    "nao_jax.rnn_presets",
    "nao_jax.recipes",
    "nao_jax.journal",
    "nao_jax.search",
  ),
  ("nao_jax.search_state", "nao_jax.report"),
  ("nao_jax.checkpoint", "nao_jax.workdir"),
  ("nao_jax.pool", "nao_jax.strategies"),
  ("nao_jax.controller", "nao_jax.evaluators"),
  ("nao_jax.training", "nao_jax.networks"),
  ("nao_jax.spaces", "nao_jax.data", "nao_jax.parallel"),
  (
    "nao_jax.compile_time",
    "nao_jax.interruption",
    "nao_jax.json_file",
    "nao_jax.lock",
    "nao_jax.measures",
    "nao_jax.pace",
    "nao_jax.progress",
    "nao_jax.ranges",
    "nao_jax.status",
    "nao_jax.trials",
  ),
  ("nao_jax.errors",),
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


def _imports(source):
  """The dotted names a source imports, at its top or inside a function."""
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"line {node.lineno}: a relative import"
      yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _is_in(name, place):
  return f"{name}.".startswith(f"{place}.")


def _height(name):
  """The layer of a module, counted from below; None: it has none."""
  places = enumerate(reversed(LAYERS))
  heights = (h for h, layer in places if any(_is_in(name, p) for p in layer))
  return next(heights, None)


def test_every_module_has_its_layer():
  homeless = {name for name in PROJECT if _height(name) is None}
  assert homeless == {"nao_jax"}


def test_imports_run_downwards():
  assert not [
    f"{name} imports {imported}"
    for name, source in PROJECT.items()
    for imported in _imports(source)
    if (_height(imported) or 0) > (_height(name) or 0)
  ]


def test_imports_form_no_circle():
  graph = {name: _modules(source) for name, source in PROJECT.items()}
  graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


def _modules(source):
  """The modules of the project that a source imports or imports from."""
  names = set(_imports(source))
  names |= {name.rpartition(".")[0] for name in names}
  return names & PROJECT.keys()


def test_the_library_reads_no_flags():
  assert not [
    name
    for name, source in _sources("nao_jax").items()
    if any(_is_in(imported, "absl.flags") for imported in _imports(source))
  ]


def test_only_one_module_says_pmap():
  users = {
    name
    for name, source in PROJECT.items()
    if re.search("pmap|shard_map", source)
  }
  assert users == {"nao_jax.parallel"}


def test_nothing_imports_tensorflow():
  everything = PROJECT | _sources("tests")
  assert not [
    name
    for name, source in everything.items()
    if any(_is_in(imported, "tensorflow") for imported in _imports(source))
  ]
