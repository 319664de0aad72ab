"""Signals that need no training, and first pools chosen by them."""

import dataclasses

import jax
import numpy as np
import pytest

from nao_jax import experiment, settings
from nao_jax.data.images import Examples, ImageData
from nao_jax.errors import UserError
from nao_jax.networks.edge_config import EdgeNetworkConfig
from nao_jax.objectives import CostConstraint
from nao_jax.search import loop
from nao_jax.search.config import SearchConfig
from nao_jax.spaces import nasbench201
from nao_jax.strategies.proxies import Proxy, first_pool, mean_ranks
from nao_jax.strategies.uniform import Uniform, sample_new
from nao_jax.tasks import image_proxies, images
from nao_jax.tasks.image_config import SearchCnnConfig

SPACE = nasbench201.space()
KEY = jax.random.key(0)


def _convolutions(tokens):
  return (nasbench201.to_ops(tokens) == 3).sum(-1)


def _first(tokens):
  return -tokens[:, 0]


CONVOLUTIONS = Proxy("convolutions", _convolutions)


def test_the_first_pool_is_the_best_of_what_is_drawn():
  chosen = first_pool(SPACE, KEY, 5, [CONVOLUTIONS], draws=8)
  drawn = sample_new(SPACE, KEY, 40, set())
  expected = np.sort(_convolutions(drawn))[::-1][:5]
  np.testing.assert_array_equal(_convolutions(chosen), expected)
  assert set(SPACE.keys(chosen)) <= set(SPACE.keys(drawn))


def test_several_proxies_count_by_their_ranks():
  """A proxy's scale does not count."""
  one, other = (
    first_pool(
      SPACE,
      KEY,
      5,
      [CONVOLUTIONS, Proxy("first", lambda rows, s=scale: s * _first(rows))],
    )
    for scale in (1, 1e6)
  )
  np.testing.assert_array_equal(one, other)
  alone = first_pool(SPACE, KEY, 5, [CONVOLUTIONS])
  assert (one != alone).any()


def test_known_and_disallowed_architectures_are_left_out():
  known = set(SPACE.keys(first_pool(SPACE, KEY, 5, [CONVOLUTIONS])))
  cost = CostConstraint("total", lambda rows: rows.sum(-1), limit=90)
  chosen = first_pool(
    SPACE, KEY, 5, [CONVOLUTIONS], known=known, constraint=cost
  )
  assert known.isdisjoint(SPACE.keys(chosen))
  assert chosen.sum(-1).max() <= 90


def test_a_search_starts_from_the_chosen_ones():
  chosen = first_pool(SPACE, KEY, 4, [CONVOLUTIONS])
  pool = loop.run(
    SPACE,
    _convolutions,
    KEY,
    SearchConfig(4, rounds=1, new_per_round=2, extend=True),
    strategy=Uniform(SPACE),
    given=chosen,
  )
  np.testing.assert_array_equal(pool.tokens[:4], chosen)


NETWORK = EdgeNetworkConfig(cells_per_stage=1, channels=4, classes=3)
NAMES = ["parameters", "multiply_adds", "gradient_norm"]


@pytest.fixture(scope="module")
def data():
  """Random images of three classes."""
  rng = np.random.default_rng(0)
  part = Examples(
    rng.integers(0, 256, (9, 8, 8, 3)).astype(np.uint8), np.arange(9) % 3
  )
  moments = np.full(3, 0.5, np.float32), np.full(3, 0.3, np.float32)
  return ImageData("random", 3, part, part, part, *moments)


def test_signals_of_cells_serve_any_number_of_architectures(data):
  signals = image_proxies.proxies(NAMES, NETWORK, data, seed=0)
  assert [signal.name for signal in signals] == NAMES
  tokens = sample_new(SPACE, KEY, 40, set())
  parameters, products, norms = (x.values(SPACE, tokens) for x in signals)
  assert parameters.max() < products.min()
  assert len(set(norms.tolist())) > 30
  # The same with 64 bits enabled by another project, and alone.
  with jax.enable_x64(True):
    alone = signals[2].values(SPACE, tokens[37:])
  np.testing.assert_array_equal(alone, norms[37:])


def test_signals_of_ones_own_join_those_of_the_setting(data):
  config = SearchCnnConfig(space="nasbench201", proxies="parameters")
  task = images.OpenImages(config, data, signals=(CONVOLUTIONS,))
  names = [proxy.name for proxy in task.proxies()]
  assert names == ["parameters", "convolutions"]
  assert task.identity["signals"] == ["convolutions"]


@pytest.mark.parametrize(
  ("asked", "finalists"), [(False, 5), (True, 5), (True, 0)]
)
def test_finalists_rank_by_quick_signals_if_asked_for(data, asked, finalists):
  names = "parameters,synaptic_flow"
  config = settings.replace(
    SearchCnnConfig(space="nasbench201", proxies=names, finalists=finalists),
    {"finalist.by_signals": asked},
  )
  task = images.OpenImages(config, data)
  cells = images.Images("").cells(settings.flatten(config))
  trainings = experiment._trainings(task, cells, None)
  names = [signal.name for signal in trainings.signals]
  assert names == ["parameters"] * bool(asked and finalists)


@pytest.mark.parametrize("proxies", ["", "synaptic_flow"])
def test_finalists_cannot_rank_without_a_quick_signal(proxies):
  config = settings.replace(
    SearchCnnConfig(), {"finalist.by_signals": True, "proxies": proxies}
  )
  with pytest.raises(UserError, match="no signal is quick enough"):
    images.Images("").open(config, 1)
  image_proxies.check(config, [CONVOLUTIONS])
  image_proxies.check(dataclasses.replace(config, finalists=0), [])


def test_equal_architectures_share_the_mean_of_their_ranks():
  tokens = sample_new(SPACE, KEY, 3, set())
  constant = Proxy("constant", lambda rows: np.zeros(len(rows)))
  found = mean_ranks(SPACE, tokens, np.array([3.0, 1.0, 2.0]), [constant])
  np.testing.assert_allclose(found, [5 / 6, 3 / 6, 4 / 6])


@pytest.mark.parametrize(
  ("text", "space", "message"),
  [
    ("params", "nao", "'params' unknown; allowed: each of parameters, mult"),
    ("parameters,parameters", "nao", "'parameters' twice"),
    ("parameters,", "nao", "'' unknown"),
    ("multiply_adds", "own", "multiply-adds of your own operations"),
  ],
)
def test_unknown_signals_are_refused_by_name(text, space, message):
  with pytest.raises(UserError, match=f"`proxies={text}`: {message}"):
    image_proxies.parse(text, space)


@pytest.mark.parametrize("text", ["parameters", "multiply_adds"])
def test_a_signal_of_the_caller_needs_a_name_of_its_own(text):
  own = Proxy("parameters", _convolutions)
  others = (own,) if text == "parameters" else (own, own)
  with pytest.raises(UserError, match="`signals`: 'parameters' is there twice"):
    image_proxies.parse(text, "nao", others)


def _broken(tokens):
  return np.where(np.arange(len(tokens)) == 2, np.nan, 1.0)


@pytest.mark.parametrize(
  ("function", "message"),
  [
    (_broken, r"'own' of architecture 3 of 20, \[.*\], is nan; allowed"),
    (lambda rows: rows[1:, 0], r"'own' gave an array \[19\] for 20"),
    (lambda rows: np.ones(len(rows)), r"'own' is 1 for each of 20"),
  ],
)
def test_a_proxy_without_usable_numbers_is_refused(function, message):
  with pytest.raises(UserError, match=message):
    first_pool(SPACE, KEY, 2, [Proxy("own", function)])


def test_no_proxy_is_refused():
  with pytest.raises(UserError, match="none is given"):
    first_pool(SPACE, KEY, 2, [])
