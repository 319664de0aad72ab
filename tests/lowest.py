"""The lowest versions that setup.cfg allows, as a requirements file.

python -m tests.lowest > lowest.txt
"""

import configparser
import pathlib
import re

# Not needed to run the tests.
_OTHERS = ("docs", "fuzz", "lint", "cuda12", "cuda13", "tpu")


def lowest(config: str) -> list[str]:
  """Returns `NAME==VERSION` of all that the tests need.

  Args:
    config: text of setup.cfg.
  """
  parser = configparser.ConfigParser()
  parser.read_string(config)
  extras = dict(parser["options.extras_require"])
  groups = [text for name, text in extras.items() if name not in _OTHERS]
  lines = "\n".join([parser["options"]["install_requires"], *groups])
  return [_lowest(line) for line in lines.split("\n") if line]


def _lowest(requirement: str) -> str:
  name, version = re.match(r"([\w.-]+)[>=]=([\d.]+)", requirement).groups()
  return f"{name}=={version}"


def main() -> None:
  """Prints them."""
  path = pathlib.Path(__file__).parents[1] / "setup.cfg"
  print(*lowest(path.read_text(encoding="utf-8")), sep="\n")


if __name__ == "__main__":
  main()
