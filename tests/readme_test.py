import pathlib
import re

import jax
import numpy as np

README = pathlib.Path(__file__).parents[1] / "README.md"


def _example(containing):
  examples = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
  (example,) = [text for text in examples if containing in text]
  return example


def _run(example):
  names = {}
  exec(compile(example, str(README), "exec"), names)
  return names


def test_the_example_in_the_readme_decodes_architectures():
  names = _run(_example("greedy_decode"))
  proposals = np.asarray(names["proposals"])
  assert len(proposals) == len(names["seeds"])
  assert all(map(names["controller"].space.accepts, proposals.tolist()))


def test_the_example_in_the_readme_runs_an_exported_network(
  tmp_path, monkeypatch
):
  """What experiments.evaluate_cnn writes is such a file: cnn_training_test."""
  example = _example("network.jax")
  assert "nao_jax" not in example
  assert len(example.strip().splitlines()) <= 15
  function = jax.jit(lambda images: images.sum((1, 2)).astype("float32"))
  (batch,) = jax.export.symbolic_shape("batch")
  images = jax.ShapeDtypeStruct((batch, 4, 4, 3), "uint8")
  exported = jax.export.export(function)(images)
  (tmp_path / "network.jax").write_bytes(exported.serialize())
  monkeypatch.chdir(tmp_path)
  assert _run(example)["logits"].shape == (2, 3)
