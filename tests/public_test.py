"""Semantic versions: what is public stays."""

import configparser
import pathlib
import re
import subprocess
import sys

import nao_jax

ROOT = pathlib.Path(__file__).parents[1]


def test_no_public_name_is_gone():
  """They are listed by another process, as drivers share flags."""
  listed = subprocess.run(
    [sys.executable, "-m", "tests.public"],
    cwd=ROOT,
    check=True,
    capture_output=True,
    text=True,
  )
  there = {*listed.stdout.splitlines()}
  promised = {*(ROOT / "tests" / "public.txt").read_text().splitlines()}
  assert not promised - there, "gone: a new minor version, and the CHANGELOG"


def test_every_file_names_the_same_version():
  citation = (ROOT / "CITATION.cff").read_text()
  assert f"\nversion: {nao_jax.__version__}\n" in citation
  (date,) = re.findall(r"^date-released: (\S+)$", citation, re.MULTILINE)
  newest = re.findall(
    r"^## \[(.*)\] - (.*)$",
    (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
    re.MULTILINE,
  )[0]
  assert newest == (nao_jax.__version__, date)


def test_the_page_of_the_package_has_no_links_into_the_repository():
  config = configparser.ConfigParser()
  config.read(ROOT / "setup.cfg")
  page = config["metadata"]["long_description"].removeprefix("file: ")
  links = re.findall(r"\]\(([^)]+)\)", (ROOT / page).read_text())
  assert links
  assert all(link.startswith("https://") for link in links)
