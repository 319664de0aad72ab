"""The driver as a user starts it."""

import functools
import json
from xml.etree import ElementTree

import pytest

from nao_jax.networks.cost import cost
from nao_jax.networks.macro import NetworkConfig
from nao_jax.networks.recurrent import LanguageModelConfig
from nao_jax.spaces import cnn, published
from tests import drivers

TINY = ("--channels=2", "--cells_per_stage=1")
CELLS = "0 0 1 4 1 3 0 2 | 1 4 1 0 2 2 2 3"

describe = functools.partial(drivers.run, "experiments.describe")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp("drawings")


@pytest.fixture(scope="module")
def naonet_a(folder):
  """Output about NAONet-A at the official size."""
  result = describe("--arch=naonet-a", f"--output={folder}")
  assert result.returncode == 0, result.stderr
  return result.stdout


@pytest.fixture(scope="module")
def plain(folder):
  """(standard output, the object in it) for plain numbers."""
  result = describe(
    f"--arch={CELLS}",
    *("--json", "--noauxiliary", "--image_size=8", "--image_channels=1"),
    *("--classes=7", f"--output={folder}/new/mine", *TINY),
  )
  assert result.returncode == 0, result.stderr
  return result.stdout, json.loads(result.stdout)


def test_people_read_the_size_with_and_without_the_auxiliary_head(naonet_a):
  rows = [line.split() for line in naonet_a.splitlines()]
  assert ["network", "11,470,150", "1,673,814,240"] in rows
  assert ["with", "auxiliary", "11,946,576", "1,674,510,048"] in rows


def test_people_read_a_row_for_each_cell_with_its_loose_ends(naonet_a):
  rows = [line.split() for line in naonet_a.splitlines() if line.strip()]
  cells = [row for row in rows if row[0] in ("normal", "reduction")]
  assert [row[0] for row in cells] == (
    [*["normal"] * 6, "reduction"] * 2 + ["normal"] * 6
  )
  assert cells[0][1:5] == ["3", "5", "6", "32x32x108"]
  assert cells[6][1:6] == ["3", "4", "5", "6", "16x16x288"]


def test_people_read_the_cells_and_where_they_were_published(naonet_a):
  (entry,) = (e for e in published.CONVOLUTIONAL if e.name == "NAONet-A")
  assert f"cnn-large-5: {entry.text}\n" in naonet_a
  assert f"published in {entry.source}\n" in naonet_a


def test_a_folder_gets_drawings_of_the_architectures_name(naonet_a, folder):
  files = [folder / f"NAONet-A.{suffix}" for suffix in ("png", "svg", "pdf")]
  assert f"drawn in {', '.join(map(str, files))}\n" in naonet_a
  assert files[0].read_bytes().startswith(b"\x89PNG")
  assert files[2].read_bytes().startswith(b"%PDF")
  assert "NAONet-A" in ElementTree.parse(files[1]).getroot().itertext()


def test_machines_read_one_object_and_nothing_else(plain):
  text, found = plain
  assert text.count("\n") == 1
  config = NetworkConfig(
    nodes=2, cells_per_stage=1, channels=2, classes=7, auxiliary=False
  )
  tokens = cnn.parse(cnn.space(2), CELLS)
  expected = cost(config, tokens, 8, 1)
  assert found["parameters"] == expected.parameters
  assert found["multiply_adds"] == expected.multiply_adds
  assert found["auxiliary_parameters"] == 0
  assert found["text"] == CELLS
  assert found["name"] is None
  assert NetworkConfig(**found["network"]) == config
  assert found["image"] == [8, 8, 1]
  assert found["loose_ends"] == {"normal": [2, 3], "reduction": [0, 3]}


def test_the_parts_of_the_object_make_up_the_whole(plain):
  _, found = plain
  for key in ("parameters", "multiply_adds"):
    assert sum(part[key] for part in found["parts"]) == found[key]
  assert [part["output"] for part in found["parts"]] == [
    [8, 8, 6], [8, 8, 4], [4, 4, 8], [4, 4, 8], [2, 2, 16], [2, 2, 16],
    [1, 1, 7],
  ]  # fmt: skip


def test_a_prefix_gets_drawings_in_a_new_folder(plain, folder):
  _, found = plain
  ends = ("png", "svg", "pdf")
  expected = [str(folder / "new" / f"mine.{end}") for end in ends]
  assert found["drawings"] == expected
  assert {str(file) for file in (folder / "new").iterdir()} == set(expected)


def test_the_object_is_a_file_that_arch_takes(plain, folder):
  text, found = plain
  file = folder / "mine.json"
  file.write_text(text)
  again = json.loads(describe(f"--arch={file}", "--json", *TINY).stdout)
  assert again["tokens"] == found["tokens"]
  assert again["space"] == found["space"] == "cnn-small-2"
  assert again["drawings"] == []


def test_imagenet_networks_take_224_pixels_unless_told_otherwise():
  result = describe(
    *("--arch=NAONet-V2", "--stem=imagenet", "--classes=1000"),
    *("--channels=52", "--cells_per_stage=4", "--json"),
  )
  found = json.loads(result.stdout)
  assert found["image"] == [224, 224, 3]
  assert found["parameters"] == 7_026_850
  assert found["auxiliary"]["parameters"] == found["auxiliary_parameters"] > 0


def test_people_read_about_a_recurrent_cell(folder):
  result = describe("--arch=nao-rnn", f"--output={folder}/")
  assert result.returncode == 0, result.stderr
  rows = [line.split() for line in result.stdout.splitlines()]
  assert ["0", "input,", "state", "tanh", "0", "2,890,000"] in rows
  assert ["9", "7", "relu", "6", "1,445,000"] in rows
  assert ["language", "model", "27,295,000"] in rows
  (entry,) = (e for e in published.RECURRENT if e.name == "NAO-RNN")
  assert f"rnn-11: {entry.text}\n" in result.stdout
  picture = (folder / "NAO-RNN.svg").read_text()
  assert "identity" in picture


def test_numbers_are_a_recurrent_cell_if_a_flag_says_so_and_files_know(folder):
  sizes = ("--json", "--width=3", "--vocabulary=5")
  result = describe("--recurrent", "--arch=0 1 1 2", *sizes)
  # Two official implementations number two activations in two ways.
  assert "2 is read as sigmoid and 3 as identity" in result.stderr
  text = result.stdout
  found = json.loads(text)
  config = LanguageModelConfig(nodes=2, width=3, vocabulary=5)
  assert found["parameters"] == config.parameters
  steps = [(p["predecessor"], p["activation"]) for p in found["parts"]]
  assert steps == [(None, "tanh"), (0, "relu"), (1, "sigmoid")]
  assert found["depth"] == 2
  file = folder / "recurrent.json"
  file.write_text(text)
  assert describe(f"--arch={file}", *sizes).stdout == text


@pytest.mark.parametrize(
  ("flags", "says"),
  [
    (["--arch=NAONet-Z"], "NAONet, NAONet-A, NAONet-B, NAO-WS, NAONet-V2"),
    (["--arch=NAO-WS", "--recurrent"], "those are NAO-RNN, NAO-WS-RNN"),
    (["--arch=NAO-WS", "--channels=5"], "--channels=5: "),
    (["--arch=NAO-WS", "--image_size=64"], "give --noauxiliary"),
    (["--arch=SemiNASNet", "--space=mobile", "--ops=large"], "--ops=large: "),
    (
      ["--arch=1 1 3 1 1 1 1 1", "--preset=mobile_cifar10"],
      "token 3 at place 3 of 8",
    ),
    (["--arch=NAO-WS", "--output=/dev/null/x"], "--output=/dev/null/x: "),
  ],
)
def test_what_cannot_be_described_is_said_in_a_line(flags, says):
  result = describe(*flags)
  assert result.returncode == 2
  assert result.stdout == ""
  assert result.stderr.startswith("error: ")
  assert result.stderr.count("\n") == 1
  assert says in result.stderr


def test_the_published_mobile_network_is_described(folder):
  result = describe(
    *("--preset=seminasnet_imagenet", "--arch=SemiNASNet", "--classes=1000"),
    f"--output={folder}/",
  )
  assert result.returncode == 0, result.stderr
  rows = [line.split() for line in result.stdout.splitlines()]
  (whole,) = (row for row in rows if row[:1] == ["network"])
  assert whole[1] == "6,319,360"
  assert rows[6][:4] == ["place", "1:", "MB6", "7x7"]
  assert "loose ends" not in result.stdout
  assert "architecture in space mobile: 6 5 1 7 4 2" in result.stdout
  assert "SemiNASNet" in (folder / "SemiNASNet.svg").read_text()


def test_a_cell_of_the_benchmark_is_described_by_its_notation(folder):
  cell = "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
  result = describe(f"--arch={cell}", "--json")
  assert result.returncode == 0, result.stderr
  found = json.loads(result.stdout)
  assert (found["space"], found["text"]) == ("nasbench201", cell)
  assert found["network"] == {
    "cells_per_stage": 5, "channels": 16, "classes": 10,
  }  # fmt: skip
  assert found["image"] == [32, 32, 3]
  file = folder / "cell.json"
  file.write_text(result.stdout)
  again = describe(f"--arch={file}", "--channels=4", "--json")
  assert json.loads(again.stdout)["tokens"] == found["tokens"]
