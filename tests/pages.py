"""The documentation as tests see it: pages, their code, their commands."""

import pathlib
import re
import shlex
import sys

ROOT = pathlib.Path(__file__).parents[1]
PAGES = (
  ROOT / "README.md",
  ROOT / "PACKAGE.md",
  *sorted((ROOT / "docs").rglob("*.md")),
)


def name(page: pathlib.Path) -> str:
  """Its path in the project."""
  return str(page.relative_to(ROOT))


def fenced(page: pathlib.Path) -> list[tuple[str, int, str]]:
  """Language, line and text of each fenced block, in order."""
  text = page.read_text(encoding="utf-8")
  blocks = re.finditer(r"^```(\w*).*\n((?s:.*?))^```$", text, re.MULTILINE)
  return [
    (block[1], text.count("\n", 0, block.start(2)), block[2])
    for block in blocks
  ]


def code(page: pathlib.Path) -> list[tuple[int, str]]:
  """Line and text of each block of Python."""
  return [
    (line, text)
    for language, line, text in fenced(page)
    if language == "python"
  ]


def run(page: pathlib.Path) -> dict:
  """Runs the Python of a page from top to bottom; returns its names."""
  names = {"__name__": name(page)}
  for line, text in code(page):
    # Blank lines before it, so that a traceback names the page's line.
    exec(compile("\n" * line + text, str(page), "exec"), names)
  return names


def commands(page: pathlib.Path) -> list[tuple[str, list[str]]]:
  """Module and arguments of each `python -m` in the page's shell blocks.

  `nao_jax NAME` stands for the module of a driver.
  """
  found = []
  for language, _, text in fenced(page):
    if language != "python":
      for line in text.replace("\\\n", " ").splitlines():
        if written := re.match(r".*?(python -m |^nao_jax (?=\w))(.*)", line):
          module, *arguments = shlex.split(written[2], comments=True)
          if written[1] == "nao_jax ":
            module = f"experiments.{module}"
          found.append((module, arguments))
  return found


if __name__ == "__main__":  # Prints the Python of a page, or its first blocks.
  page, *most = sys.argv[1:]
  blocks = code(pathlib.Path(page))[: int(most[0]) if most else None]
  print("\n".join(text for _, text in blocks))
