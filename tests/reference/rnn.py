"""The recurrent language model against the reference numbers."""

from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from nao_jax.networks import recurrent
from nao_jax.networks.recurrent import LanguageModelConfig, Weights
from nao_jax.spaces.rnn import ACTIVATIONS
from tests.reference import formula
from tests.reference.check import Check, compare

# Numbers of parameters differ by less than one, or not at all.
EXACT = 0.5


def checks(case: dict, arrays: Mapping[str, np.ndarray]) -> Iterator[Check]:
  """Compares every output of one case.

  Args:
    case: its entry in the JSON file.
    arrays: what the case's arrays hold, by names without the case's.

  Yields:
    A check for each output.
  """
  cell = _cell(case)
  config = LanguageModelConfig(
    nodes=len(cell), width=case["width"], vocabulary=case["vocab"]
  )
  yield Check("params", abs(config.parameters - case["params"]), EXACT)
  weights = _weights(config)
  outputs = recurrent.apply(
    weights,
    cell,
    jnp.asarray(formula.words((case["time"], case["batch"]))),
    jnp.asarray(formula.start_state((case["batch"], config.width))),
  )
  log_probs = jax.nn.log_softmax(recurrent.logits(weights, outputs.dropped))
  yield compare(case, "log_probs", log_probs, arrays["log_probs"])
  yield compare(case, "hidden", outputs.hidden[None], arrays["hidden"])


def _cell(case: dict) -> jax.Array:
  """int32 [N, 2]; the case says how it numbers activations: "0 tanh, ..."."""
  numbered = [entry.split() for entry in case["activations"].split(", ")]
  ours = {int(number): ACTIVATIONS.index(name) for number, name in numbered}
  pairs = np.array(case["arch"].split(), np.int32).reshape(-1, 2)
  return jnp.array([(source, ours[a]) for source, a in pairs.tolist()])


def _weights(config: LanguageModelConfig) -> Weights:
  """The formula's; the cell's matrices have the layout that it speaks of."""
  width = config.width
  node = formula.weight((width, 2 * width))
  return jax.tree.map(
    jnp.asarray,
    Weights(
      formula.weight((config.vocabulary, width)),
      formula.bias(config.vocabulary),
      formula.weight((2 * width, 2 * width)),
      np.stack([node] * config.nodes),
    ),
  )
