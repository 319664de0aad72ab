"""Small pieces of work for two processes, each of which runs this program.

python -m tests.team_work PORT NUMBER WORKDIR

Runs a search; then trainings and scores, which go to a file in the workdir;
then the training of a recurrent cell in a workdir of its own, beside the other
one; at last a training in which the second process finds damaged images.
"""

import pathlib
import sys

import jax
import numpy as np

from nao_jax.data.augment import AugmentConfig
from nao_jax.data.images import ImageData, Record
from nao_jax.data.stream import ImageStream, StreamConfig
from nao_jax.data.text import Corpus
from nao_jax.distributed.evaluator import EvaluatorHelper, TeamEvaluator
from nao_jax.distributed.processes import Rendezvous, meet
from nao_jax.distributed.training import FeedHelper, TeamFeed
from nao_jax.errors import UserError
from nao_jax.evaluators import shared
from nao_jax.evaluators.shared_language import SharedLanguage
from nao_jax.networks.recurrent import LanguageModelConfig
from nao_jax.pool import Pool
from nao_jax.runs import chunking
from nao_jax.search import loop
from nao_jax.search.config import SearchConfig
from nao_jax.spaces import cnn, rnn
from nao_jax.strategies.uniform import Uniform
from nao_jax.tasks import text_recipes
from nao_jax.training import language, recipe, recurrent, stand_alone, supernet
from nao_jax.training.feeds import InMemory, Streamed
from nao_jax.training.language import TextTrainConfig
from nao_jax.training.optimisers import SgdConfig
from nao_jax.training.stand_alone_language import Reader
from tests import running, tiny_images
from tests.short_networks import ShortConfig

EXAMPLES, BATCH = 24, 8
SPACE = cnn.space(2)
CONFIG = SearchConfig(pool_size=5, rounds=1, new_per_round=2)
TRAINER = supernet.Trainer(
  ShortConfig(nodes=2, channels=2, classes=3, kinds="N"),
  recipe.TrainConfig(epochs=2, batch=BATCH, drop_path_keep=0.9),
  # Rounding is that of another order of sums, and should stay so small.
  SgdConfig(learning_rate=0.01),
  AugmentConfig(padding=1, flip=True),
  EXAMPLES,
)


ALONE = stand_alone.Trainer(
  **vars(TRAINER), tokens=(0, 1, 1, 4, 1, 3, 0, 2, 1, 4, 1, 0, 2, 2, 2, 3)
)
FILE = "trained.npz"
DAMAGED = "noise.tfrecord: record 3"
# Beside a workdir: a text, and the workdir of a training on it.
TEXT, CELL = "text", "cell"


def _data() -> ImageData:
  """Makes images that are the same in every process."""
  return tiny_images.noise(EXAMPLES, 19, 1)


def evaluator() -> shared.SharedWeights:
  """Makes an evaluator that is the same in every process."""
  return shared.SharedWeights(TRAINER, _data(), CONFIG.rounds + 1)


def feed() -> InMemory:
  """Makes a feed that is the same in every process."""
  data = _data()
  return InMemory(ALONE, data)


def streamed() -> shared.SharedWeights:
  """Makes an evaluator on a stream, equal in every process."""
  data = _stream(held_out=11)
  return shared.SharedWeights(TRAINER, data, CONFIG.rounds + 1)


def stream(damaged: int = 0) -> Streamed:
  """Makes a feed that is equal in every process, but for damaged images."""
  data = _stream(damaged)
  return Streamed(ALONE, data, 9)


def _stream(damaged: int = 0, held_out: int = 0) -> ImageStream:
  noise = np.random.default_rng(8).integers(0, 256, (35, 9, 9, 3), np.uint8)
  records = [
    Record(tiny_images.encode(image), number % 3, "")
    for number, image in enumerate(noise)
  ]
  records[:damaged] = [Record(b"", 0, DAMAGED)] * damaged
  config = StreamConfig(size=8, workers=0)
  parts = records[:EXAMPLES], records[EXAMPLES:]
  held = records[EXAMPLES : EXAMPLES + held_out]
  return ImageStream("noise", 3, *parts, config, held)


def reader() -> SharedLanguage:
  """Makes a language evaluator that is the same in every process."""
  rng = np.random.default_rng(1)
  parts = [rng.integers(0, 9, count).astype(np.int32) for count in (300, 80, 8)]
  words = tuple(f"w{number}" for number in range(9))
  model = LanguageModelConfig(3, 6, 9, 0.2, 0.2, 0.2, 0.2)
  train = TextTrainConfig(epochs=1, batch=4, bptt=12, learning_rate=2.0)
  trainer = recurrent.Trainer(model, train, shared=True)
  return SharedLanguage(
    trainer, Corpus("noise", words, *parts), 0, 1, each_step=4
  )


def read(scores) -> np.ndarray:
  """Scores of recurrent cells."""
  rows = np.asarray(rnn.space(3).sample(jax.random.key(4), 6))
  state, key = scores.init(jax.random.key(5)), jax.random.key(6)
  return scores.score(state, key, rows, 0, lambda *_: None)[1]


def score_streamed(scores) -> np.ndarray:
  """Scores convolutional cells after a round on a stream."""
  rows = np.asarray(SPACE.sample(jax.random.key(4), 5))
  state, key = scores.init(jax.random.key(5)), jax.random.key(6)
  return scores.score(state, key, rows, 0, lambda *_: None)[1]


def init(channels: int = 1) -> stand_alone.TrainState:
  """The state before the first step of a training."""
  return ALONE.init(jax.random.key(2), (8, 8, channels))


def train(source, first, part: str) -> dict[str, np.ndarray]:
  """Parameters at the end of a training, and what was measured."""
  for call in source.train(first, jax.random.key(3)):
    state = call.state
    if state.step == 2:
      source.measure(state, part)
  loss = source.measure(state, part)["loss"]
  leaves = [*jax.tree.leaves(state.params), np.float32(loss)]
  return {f"{part}_{number}": x for number, x in enumerate(leaves)}


def write_text(base) -> None:
  """Four lines of 40 words to train with, one to measure with."""
  rng, folder = np.random.default_rng(7), base / TEXT
  folder.mkdir()
  for part, lines in (("train", 4), ("valid", 1), ("test", 1)):
    words = [
      [f"w{word % 9}" for word in rng.zipf(1.5, 40)] for _ in range(lines)
    ]
    text = "\n".join(map(" ".join, words))
    (folder / f"tiny.{part}.txt").write_text(text)


def train_cell(base, team=None) -> dict | None:
  """Trains a recurrent cell; what comes of it."""
  config = text_recipes.TrainRnnConfig(
    text=str(base / TEXT),
    arch="0 0 1 1 0 3",
    network=LanguageModelConfig(width=8, output_dropout=0.2),
    train=TextTrainConfig(
      epochs=3, batch=4, bptt=5, learning_rate=1.0, clip=0.25
    ),
    eval_batch=2,
  )
  return running.train_texts(config, workdir=base / CELL, team=team)


def make_cells_quick_and_diverge_once(patch) -> None:
  """Makes all windows equally long, for one program; loses the second epoch.

  Args:
    patch: `setattr`, or pytest's.
  """
  train = Reader.train

  def poisoned(reader, state, key):
    for call in train(reader, state, key):
      lost = (call.state.epoch, call.state.roll_backs) == (1, 0)
      yield call._replace(losses=call.losses * np.nan) if lost else call

  patch(Reader, "train", poisoned)
  patch(language, "PADDED_TO", 30)


def run(scores, workdir) -> Pool:
  """The search."""
  return loop.run(
    SPACE,
    scores,
    jax.random.key(0),
    CONFIG,
    strategy=Uniform(SPACE),
    workdir=workdir,
  )


def main(port: str, number: str, workdir: str) -> None:
  """Leads or helps."""
  chunking.SECONDS = 0.0  # A step a call, and so many places to die at.
  make_cells_quick_and_diverge_once(setattr)
  team = meet(Rendezvous(f"127.0.0.1:{port}", 2, int(number)))
  scores = evaluator()
  if team.first:
    with team.leading():
      run(TeamEvaluator(scores, team, "search"), workdir)
      found = train(TeamFeed(feed(), team), init(), "validation")
      text = read(TeamEvaluator(reader(), team, "text"))
      streams = score_streamed(TeamEvaluator(streamed(), team, "streamed"))
    with team.leading():
      found |= train(TeamFeed(stream(), team), init(channels=3), "test")
    np.savez(pathlib.Path(workdir, FILE), text=text, streams=streams, **found)
  else:
    helper = FeedHelper(feed(), team, init())
    search_helper = EvaluatorHelper(scores, team, "search")
    text_helper = EvaluatorHelper(reader(), team, "text")
    streamed_helper = EvaluatorHelper(streamed(), team, "streamed")
    team.help(
      search_helper.handlers
      | text_helper.handlers
      | streamed_helper.handlers
      | helper.handlers
    )
    team.help(FeedHelper(stream(), team, init(channels=3)).handlers)
  train_cell(pathlib.Path(workdir).parent, team)
  find_damage(team)


def find_damage(team) -> None:
  """Lets the second process find damaged images in its own share."""
  state = init(channels=3)
  if team.first:
    with team.leading():
      train(TeamFeed(stream(), team), state, "test")
  else:
    team.help(FeedHelper(stream(damaged=2), team, state).handlers)


if __name__ == "__main__":
  try:
    main(*sys.argv[1:])
  except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
