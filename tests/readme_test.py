"""README and pages say what is there: links, commands, the navigation."""

import configparser
import re
import runpy

from absl import flags
import pytest

from experiments import driver  # Flags that are not a driver's own.
from nao_jax.tasks import (
  image_presets,
  image_recipes,
  text_presets,
  text_recipes,
)
from tests import driver_flags, pages

del driver
PRESETS = {
  "experiments.search_cnn": image_presets.PRESETS,
  "experiments.search_rnn": text_presets.PRESETS,
  "experiments.train_cnn": image_recipes.RECIPES,
  "experiments.describe": image_recipes.RECIPES,
  "experiments.train_rnn": text_recipes.RECIPES,
}
COMMANDS = sorted(
  (pages.name(page), module, tuple(arguments))
  for page in pages.PAGES
  for module, arguments in pages.commands(page)
  if module.startswith("experiments.")
  and module != "experiments.completion"  # Its argument is no flag.
)


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name)
def test_links_lead_to_files(page):
  text = re.sub(r"(?ms)^```.*?^```$", "", page.read_text(encoding="utf-8"))
  links = re.findall(r"\]\((?!https?:)([^)#\s]+)", text)
  assert not [link for link in links if not (page.parent / link).exists()]


def test_every_page_is_in_the_navigation():
  settings = (pages.ROOT / "mkdocs.yml").read_text(encoding="utf-8")
  named = {line.split()[-1] for line in settings.splitlines() if ".md" in line}
  docs = pages.ROOT / "docs"
  there = {str(page.relative_to(docs)) for page in docs.rglob("*.md")}
  assert named == there


def test_every_driver_is_in_the_readme():
  text = (pages.ROOT / "README.md").read_text(encoding="utf-8")
  rows = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
  named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
  drivers = {
    path.stem
    for path in (pages.ROOT / "experiments").glob("*.py")
    if "driver.run(" in path.read_text(encoding="utf-8")
  }
  assert named == drivers


def test_every_extra_is_in_the_page_on_installing():
  text = (pages.ROOT / "docs" / "installed.md").read_text(encoding="utf-8")
  config = configparser.ConfigParser()
  config.read(pages.ROOT / "setup.cfg")
  extras = {*config["options.extras_require"]} - {
    "test",
    "fuzz",
    "lint",
    "docs",
  }
  named = re.findall(r"^\| (`.*?`) \|", text, re.MULTILINE)
  assert {*re.findall(r"`(\w+)`", " ".join(named))} == extras


def test_every_module_is_in_the_api_reference():
  folder = pages.ROOT / "docs" / "api"
  text = "".join(page.read_text() for page in sorted(folder.glob("*.md")))
  named = set(re.findall(r"^::: (\S+)$", text, re.MULTILINE))
  package = pages.ROOT / "nao_jax"
  rooms = {
    f"nao_jax.{path.stem}"
    for path in package.iterdir()
    if path.suffix == ".py" or (path / "__init__.py").exists()
  }
  assert named == rooms - {"nao_jax.__init__", "nao_jax.experiments"}


def test_every_preset_is_in_the_page_on_the_paper():
  text = (pages.ROOT / "docs" / "reproducing.md").read_text(encoding="utf-8")
  names = {name for known in PRESETS.values() for name in known}
  assert not [name for name in names if f"| `{name}`" not in text]


def test_the_presets_in_the_commands_exist():
  named = [
    (page, module, argument.removeprefix("--preset="))
    for page, module, arguments in COMMANDS
    for argument in arguments
    if argument.startswith("--preset=")
  ]
  assert not [row for row in named if row[2] not in PRESETS[row[1]]]


@pytest.fixture
def no_flags():
  """Other tests of this process may have imported drivers."""
  drivers = {module for _, module, _ in COMMANDS}
  with driver_flags.set_aside("benchmarks.", *drivers):
    yield


@pytest.mark.usefixtures("no_flags")
def test_the_commands_of_the_pages_have_flags_of_their_drivers():
  """They are parsed as the driver would, and not run."""
  wrong = []
  for module in sorted({module for _, module, _ in COMMANDS}):
    before = set(flags.FLAGS)
    runpy.run_module(module, run_name="pages")
    own = set(flags.FLAGS) - before
    for page, of, arguments in COMMANDS:
      if of == module:
        flags.FLAGS.unparse_flags()
        try:
          rest = flags.FLAGS([module, *arguments])
          assert len(rest) == 1
        except (flags.Error, AssertionError) as error:
          wrong.append(f"{page}: {module} {' '.join(arguments)}: {error}")
    flags.FLAGS.remove_flag_values(own)
  flags.FLAGS.unparse_flags()
  assert not wrong
