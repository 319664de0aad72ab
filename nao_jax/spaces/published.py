"""Architectures that the authors published, by name.

Convolutional cells are in the notation of `cnn.to_text`: normal cell |
reduction cell, with `input_a op_a input_b op_b` for each node, all counted from
0. Recurrent cells are 11 pairs `predecessor activation`; predecessor 0 is the
state computed from input and hidden state, activations are 0 tanh, 1 relu, 2
sigmoid, 3 identity. The official implementations number ops and activations
in more than one way; here all numbers follow this project.
"""

import dataclasses

from nao_jax.errors import UserError, named


@dataclasses.dataclass(frozen=True)
class Published:
  """Published architecture.

  Attributes:
    name: the authors' name.
    ops: the op set that its numbers index; "recurrent" for recurrent cells.
    text: the architecture.
    source: the place of publication, and changes made here.
  """

  name: str
  ops: str
  text: str
  source: str


CONVOLUTIONAL = (
  Published(
    name="NAONet",
    ops="large",
    text="0 2 1 10 2 3 1 2 0 1 1 2 0 3 4 2 1 0 0 2 | "
    "0 2 1 8 0 1 0 9 1 4 0 5 0 9 2 1 1 6 0 2",
    source="renqianluo/NAO, search without weight sharing on CIFAR-10; "
    "written there with op names, here with ids",
  ),
  # NAONet with the inputs of the third node of the reduction cell exchanged:
  # the authors' two implementations differ, and so do the networks.
  Published(
    name="NAONet-A",
    ops="large",
    text="0 2 1 10 2 3 1 2 0 1 1 2 0 3 4 2 1 0 0 2 | "
    "0 2 1 8 0 1 0 9 0 4 1 5 0 9 2 1 1 6 0 2",
    source="renqianluo/NAO_pytorch, NAO_V1; its op ids moved down by 5",
  ),
  Published(
    name="NAONet-B",
    ops="small",
    text="0 1 0 2 0 1 2 2 1 3 0 2 4 0 1 3 2 1 0 3 | "
    "1 1 1 0 2 1 2 4 1 0 2 3 3 1 2 2 0 2 0 2",
    source="renqianluo/NAO_pytorch, NAO_V1, weight-sharing search",
  ),
  Published(
    name="NAO-WS",
    ops="small",
    text="0 1 0 4 2 2 1 3 1 0 2 0 2 3 1 3 1 2 0 4 | "
    "1 1 0 3 2 3 2 3 1 0 0 1 0 4 2 4 2 3 2 3",
    source="renqianluo/NAO, weight-sharing search on CIFAR-10",
  ),
  Published(
    name="NAONet-V2",
    ops="small",
    text="1 1 0 1 2 4 0 0 0 0 2 1 0 0 0 2 0 3 0 0 | "
    "0 2 0 2 2 2 1 0 0 0 0 1 0 0 0 3 0 0 0 1",
    source="renqianluo/NAO_pytorch, NAO_V2 (arXiv 1909.10815)",
  ),
)

RECURRENT = (
  Published(
    name="NAO-RNN",
    ops="recurrent",
    text="0 1 0 1 1 1 3 0 4 1 4 1 5 1 1 1 7 1 1 1 1 3",
    source="renqianluo/NAO, search without weight sharing on PTB; there "
    "activation 2 is identity and 3 sigmoid, here the last one is renumbered",
  ),
  Published(
    name="NAO-WS-RNN",
    ops="recurrent",
    text="0 1 1 1 2 2 1 2 4 1 4 1 4 1 7 1 8 2 1 0 4 1",
    source="renqianluo/NAO, weight-sharing search on PTB",
  ),
)


def find(
  name: str, among: tuple[Published, ...], source: str = "arch"
) -> Published:
  """Returns the architecture of a name, regardless of upper and lower case.

  Args:
    name: the name.
    among: `CONVOLUTIONAL` or `RECURRENT`.
    source: the setting or argument that holds the name, for the message.

  Raises:
    UserError: no architecture has this name; the message lists the names.
  """
  for architecture in among:
    if architecture.name.lower() == name.strip().lower():
      return architecture
  names = ", ".join(architecture.name for architecture in among)
  raise UserError(
    f"{named(source, name)}: neither a .json file, nor a list of whole "
    f"numbers, nor a published architecture; those are {names}"
  )
