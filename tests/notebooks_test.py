"""Notebooks of the documentation, executed by Jupyter's own client."""

import os

import numpy as np
import pytest

from nao_jax.pool import Pool
from tests import pages

NOTEBOOKS = sorted((pages.ROOT / "docs" / "notebooks").glob("*.md"))


def _executed(path, folder):
  """The outputs of all cells, {kind: contents}."""
  jupytext = pytest.importorskip("jupytext")
  nbclient = pytest.importorskip("nbclient")
  pytest.importorskip("ipykernel")
  notebook = jupytext.read(path)
  client = nbclient.NotebookClient(
    notebook, timeout=600, resources={"metadata": {"path": str(folder)}}
  )
  # The kernel is a process of its own, in another folder.
  client.execute(env=os.environ | {"PYTHONPATH": str(pages.ROOT)})
  found = {}
  for cell in notebook.cells:
    for output in cell.get("outputs", []):
      for kind, content in output.get("data", {}).items():
        found.setdefault(kind, []).append(content)
  return found


# What they show at least, beside words.
SHOWN = {
  "function": "text/html",
  "images": "image/svg+xml",
  "table": "image/png",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_it_found(path, tmp_path):
  if path.stem == "images":
    pytest.importorskip("onnxruntime")
  found = _executed(path, tmp_path)
  assert found[SHOWN[path.stem]]
  # Those of rounds are by rich.
  tables = [x for x in found["text/html"] if "<caption>The best of " in x]
  assert len(tables) == (path.stem != "images")


def test_a_pool_without_scores_shows_itself():
  rows = [np.zeros((2, 3), int), *np.zeros((4, 2)), np.full((2, 1), np.nan)]
  assert "2 architectures, not scored" in Pool(*rows)._repr_html_()
