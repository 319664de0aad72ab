"""Peers that the project brings do the work that they are timed at."""

import ast
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import edge_works, pairs, work
from nao_jax.data.augment import normalise
from nao_jax.networks.cost import cost
from nao_jax.training import supernet
from tests import pages

PEER = pages.ROOT / "benchmarks" / "peers" / "nasbench201_torch.py"
CHANNELS, CELLS, BATCH = 4, 1, 8


def test_a_peer_has_the_names_sizes_and_calls_of_our_side():
  (works,) = (
    ast.literal_eval(line.value)
    for line in ast.parse(PEER.read_text(encoding="utf-8")).body
    if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "WORKS"
  )
  assert works == {
    name: (*(int(size.partition("=")[2]) for size in kind.sizes), kind.repeats)
    for name, kind in pairs.KINDS.items()
    if kind.ours.startswith("edge_")
  }


@pytest.fixture(scope="module")
def ours():
  """Our trainer and weights at a peer's sizes, and what both are given."""
  sizes = work.Sizes(batch=BATCH, channels=CHANNELS, cells_per_stage=CELLS)
  vision = edge_works.vision_of(sizes)
  trainer = supernet.Trainer(**vision.recipe)
  return vision, trainer, trainer.init(jax.random.key(0), vision.data).params


@pytest.fixture(scope="module")
def gradient(ours):
  """Our loss and gradients, compiled for all cells."""
  loss = functools.partial(supernet.batch_loss, trainer=ours[1])
  return jax.jit(jax.value_and_grad(loss))


@pytest.fixture(scope="module")
def torch():
  """PyTorch, which the project does not need."""
  return pytest.importorskip("torch")


@pytest.fixture(scope="module")
def peer(torch, ours):
  """The peer's module, and its network with our weights."""
  module = {}
  exec(compile(PEER.read_text(encoding="utf-8"), PEER.name, "exec"), module)
  net = module["Supernet"](CHANNELS, CELLS)
  net.load_state_dict(
    {k: torch.tensor(np.array(v)) for k, v in _renamed(ours[2]).items()}
  )
  return module, net


def _renamed(params):
  """Our weights or gradients, by the peer's names and of its shapes."""
  params, found = params["params"], {}

  def add(name, group, leaf="", norm=""):
    kernel = group[leaf]
    kernel = kernel if kernel.ndim == 4 else kernel.T[..., None, None]
    found[f"{name}.weight"] = kernel
    if norm is not None:
      for part in ("scale", "offset"):
        found[f"{name}_norm.{part}"] = group[f"{norm}{part}"]

  add("stem", params["stem"], "conv")
  for at in range(2):
    name, group = f"residuals.{at}", params[f"residual_{at + 1}"]
    for part in ("first", "second"):
      add(f"{name}.{part}", group, f"{part}_conv", f"{part}_")
    add(f"{name}.shortcut", group, "shortcut_kernel", None)
  for k in range(3 * CELLS):
    cell = params[f"cell_{k}"]
    for op, leaf in ((2, "pointwise_1"), (3, "dense_1")):
      for edge, kernel in enumerate(cell[f"operation_{op}_{leaf}"]):
        name = f"stages.{k // CELLS}.{k % CELLS}.convs.{op}.{edge}"
        add(name, {"": kernel}, norm=None)
  for part in ("scale", "offset"):
    found[f"last_norm.{part}"] = params["last_norm"][part]
  found["classifier.weight"] = params["classifier"]["kernel"].T
  found["classifier.bias"] = params["classifier"]["bias"]
  return found


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_peer_computes_our_loss_and_gradients(
  torch, peer, ours, gradient, number
):
  vision, trainer, params = ours
  module, net = peer
  images, labels = vision.data.images[:BATCH], vision.data.labels[:BATCH]
  cells = jnp.asarray(trainer.network.to_cells(vision.tokens[number]))
  inputs = normalise(images, vision.data.mean, vision.data.std), cells, None
  loss, gradients = gradient(params, inputs, labels, {})
  net.zero_grad()
  theirs = torch.tensor(np.array(images.transpose(0, 3, 1, 2)))
  found = torch.nn.functional.cross_entropy(
    net(module["normalised"](theirs), cells.tolist()),
    torch.tensor(np.array(labels)).long(),
  )
  found.backward()
  np.testing.assert_allclose(found.item(), loss, rtol=1e-5)
  renamed = _renamed(gradients)
  for name, parameter in net.named_parameters():
    own = parameter.grad
    own = np.zeros(parameter.shape) if own is None else own.numpy()
    scale = np.abs(renamed[name]).max() + 1e-6
    np.testing.assert_allclose(own / scale, renamed[name] / scale, atol=2e-4)


def test_a_peer_multiplies_and_adds_as_often_as_we_count(torch, peer, ours):
  vision, trainer, _ = ours
  _, net = peer
  pool = np.random.RandomState(0).randint(0, 5, (64, 6))
  np.testing.assert_array_equal(trainer.network.to_cells(vision.tokens), pool)
  counted = []

  def count(layer, inputs, output):
    del inputs
    counted.append(layer.weight.numel() * output[0, 0].numel())

  kinds = torch.nn.Conv2d, torch.nn.Linear
  layers = [layer for layer in net.modules() if isinstance(layer, kinds)]
  for layer in layers:
    layer.register_forward_hook(count)
  with torch.no_grad():
    net(torch.zeros(1, 3, 32, 32), pool[1].tolist())
  needed = cost(trainer.network, vision.tokens[1], 32).multiply_adds
  assert sum(counted) == needed
