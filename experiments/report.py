"""Writes the report of a search that runs, was stopped or has ended.

python -m experiments.report --workdir=runs/digits
python -m experiments.report --workdir=runs/digits --random=runs/r1,runs/r2
python -m experiments.report --workdir=runs/cells --table=nasbench201.npz
python -m experiments.report --compare=runs/a,runs/b --output=compared.html

With a table of true scores it shows where the winner stands among all cells.
The report is the only file that is written.
"""

from absl import flags

from nao_jax.errors import UserError
from nao_jax.report import comparison_page, search_page

from . import driver, run_flags, settings

settings.stands_for("compare", "paths")
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Directory of a search; its report.html is written."
)
_RANDOM = flags.DEFINE_list(
  "random",
  [],
  "With --workdir: directories of searches with --strategy=random, whose best"
  " scores are shown beside it.",
)
_COMPARE = flags.DEFINE_list(
  "compare", None, "Directories of searches to show side by side."
)
_OUTPUT = flags.DEFINE_string(
  "output", None, "File to write, with --compare; it is an HTML page."
)
_TRUTH = run_flags.truth()


def main(_):
  """Writes the report."""
  if (_WORKDIR.value is None) == (_COMPARE.value is None):
    raise UserError("--workdir, --compare: give one of them")
  if (_OUTPUT.value is None) != (_COMPARE.value is None):
    raise UserError("--output: the file to write, needed with --compare only")
  if _RANDOM.value and _WORKDIR.value is None:
    raise UserError("--random: needs --workdir; --compare takes them itself")
  truth = _TRUTH()
  if truth is not None and _WORKDIR.value is None:
    raise UserError("--table: needs --workdir")
  if _COMPARE.value is None:
    file = search_page.write(_WORKDIR.value, _RANDOM.value, truth=truth)
  else:
    file = comparison_page.write(_COMPARE.value, _OUTPUT.value)
  print(f"report in {file}")


if __name__ == "__main__":
  driver.run(main)
