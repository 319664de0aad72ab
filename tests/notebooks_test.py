"""Notebooks of the documentation, executed by Jupyter's own client."""

import os
import shutil

import numpy as np
import pytest

from nao_jax import pool as pools
from nao_jax import settings
from nao_jax.spaces import rnn
from nao_jax.tasks import shown as shown_best
from nao_jax.tasks.text_cells import TextCells
from nao_jax.tasks.text_presets import SearchRnnConfig
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
  # The kernel is a process of its own, in another folder, with one device.
  flags = os.environ["XLA_FLAGS"].replace("_count=4", "_count=1")
  own = {"PYTHONPATH": str(pages.ROOT), "XLA_FLAGS": flags}
  client.execute(env=os.environ | own)
  found = {}
  for cell in notebook.cells:
    for output in cell.get("outputs", []):
      for kind, content in output.get("data", {}).items():
        found.setdefault(kind, []).append(content)
  return found


# What they show at least, beside words.
SHOWN = {"function": "text/html", "images": "text/html", "table": "image/png"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_it_found(path, digits_folder, tmp_path):
  if path.stem == "images":
    pytest.importorskip("onnxruntime")
    shutil.copytree(digits_folder, tmp_path / "data")
  found = _executed(path, tmp_path)
  assert found[SHOWN[path.stem]]
  # Those of rounds are by rich.
  tables = [x for x in found["text/html"] if "<caption>The best of " in x]
  assert len(tables) == (path.stem != "images")
  results = [x for x in found["text/html"] if "<th>text</th>" in x]
  assert len(results) == (path.stem == "images")
  for result in results:
    assert result.count('src="data:image/svg+xml;base64,') == 2


_SEARCH = """
import asyncio, time
import jax, nao_jax
asyncio.get_running_loop()
space = nao_jax.make_space("x", {"a": tuple(range(50)), "b": (1, 2)})
sizes = nao_jax.SearchConfig(pool_size=4, rounds=8, new_per_round=1)
def score(tokens):
  time.sleep(0.1)
  return tokens.sum(1).astype("float32")
nao_jax.run_search(space, score, jax.random.key(0), sizes,
                   strategy=nao_jax.RandomSearch(space), workdir="run")
"""


@pytest.mark.filterwarnings("ignore")
def test_a_search_shows_progress_and_stops_when_the_kernel_is_interrupted(
  tmp_path,
):
  manager = pytest.importorskip("jupyter_client.manager")
  pytest.importorskip("ipykernel")
  env = os.environ | {"PYTHONPATH": str(pages.ROOT)}
  kernel, client = manager.start_new_kernel(cwd=str(tmp_path), env=env)
  stopping = []

  def stop(message):
    shown = str(message["content"].get("data", {}).get("text/html"))
    if "<progress" in shown and "round 2 " in shown and not stopping:
      kernel.interrupt_kernel()
      stopping.append(shown)

  try:
    reply = client.execute_interactive(_SEARCH, output_hook=stop, timeout=600)
    assert stopping
    assert reply["content"]["ename"] == "Stopped"
    reply = client.execute_interactive(
      _SEARCH, output_hook=lambda message: None, timeout=600
    )
    assert reply["content"]["status"] == "ok"
  finally:
    client.stop_channels()
    kernel.shutdown_kernel(now=True)


def test_the_result_of_a_search_is_a_table_with_a_drawing():
  cells = TextCells(settings.flatten(SearchRnnConfig()))
  best = {
    "tokens": rnn.resolve("NAO-RNN").tolist(),
    "text": "<b>",
    "origin": 3,
    "validation_perplexity": 61.23456,
    "finalists": {},
  }
  shown = shown_best.Best(best, cells)
  assert shown == best
  page = shown._repr_html_()
  assert "<th>text</th><td>&lt;b&gt;</td>" in page
  assert "<td>61.23</td>" in page
  assert "<td>round 3" in page
  assert page.count('src="data:image/svg+xml;base64,') == 1
  assert "finalists" not in page


def test_a_pool_without_scores_shows_itself():
  rows = [np.zeros((2, 3), int), *np.zeros((4, 2)), np.full((2, 1), np.nan)]
  assert "2 architectures, not scored" in pools.of_table(*rows)._repr_html_()
