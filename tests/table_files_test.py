"""Tables of any space: three formats, gaps, directions, and what is refused."""

import csv
import itertools
import json
import pathlib
import re

from absl import logging
import jax
import numpy as np
import pytest

from nao_jax.data import table_files, tables
from nao_jax.errors import UserError
from nao_jax.studies import comparison, controller_study
from nao_jax.studies.comparison import CompareConfig

SLOTS = {
  "kernel": ["linear", "rbf", "poly"],
  "C": [0.1, 1, 10.0],
  "fit": [True, False],
}
HEADER = {
  "space": "machines",
  "slots": SLOTS,
  "columns": {
    "accuracy": {"unit": "%"},
    "seconds": {"unit": "s", "better": "lower"},
  },
}
ROWS = [
  [kernel, c, fit, float(10 * n % 19), 1.0 + n]
  for n, (kernel, c, fit) in enumerate(itertools.product(*SLOTS.values()))
]


def _json(path, rows=ROWS, **changes):
  file = path / "table.json"
  file.write_text(json.dumps(HEADER | changes | {"rows": rows}))
  return str(file)


def _csv(path, rows=ROWS, header=HEADER):
  file = path / "table.csv"
  with file.open("w", newline="") as opened:
    opened.write(f"# {json.dumps(header)}\n")
    writer = csv.writer(opened)
    # Columns may come in another order.
    writer.writerow(["seconds", *SLOTS, "accuracy"])
    writer.writerows([row[-1], *row[:-1]] for row in rows)
  return str(file)


def _npz(path, **changes):
  contents = table_files.read(_json(path))
  file = str(path / "table.npz")
  np.savez(file, **(table_files.arrays(contents) | changes))
  return file


@pytest.mark.parametrize("write", [_json, _csv, _npz])
def test_all_formats_hold_the_same_table(write, tmp_path):
  column = tables.load(write(tmp_path), "", "accuracy")
  space = column.space
  assert column.title == "accuracy, %"
  assert column.complete
  for row in ROWS:
    tokens = space.write(dict(zip(SLOTS, row, strict=False)))
    assert column.scores[space.number(tokens)] == row[-2]


def test_lower_is_better_is_negated_but_for_a_limit(tmp_path):
  path = _json(tmp_path)
  signal, limit = (
    tables.load(path, "", "seconds", where) for where in ("signal", "limit")
  )
  assert (signal.sign, limit.sign) == (-1, 1)
  np.testing.assert_array_equal(signal.scores, -limit.scores)
  assert signal.title == "seconds, s (lower is better)"


def test_numbers_may_be_written_in_several_ways(tmp_path):
  path = _csv(tmp_path, [["rbf", "1.00", "true", "", "3"]])
  column = tables.load(path, "", "seconds", "limit")
  assert column.space.read(column.space.rows.tokens[0]) == {
    "kernel": "rbf", "C": 1, "fit": True,
  }  # fmt: skip
  with pytest.raises(UserError, match="column 'accuracy' has no number"):
    tables.load(path, "", "accuracy")


@pytest.mark.parametrize(
  ("rows", "message"),
  [
    (
      [*ROWS, ROWS[4]],
      "row 5 and row 19 are the same architecture, kernel=lin",
    ),
    ([*ROWS[:2], ["fast", 1, True, 0, 0]], "row 3: slot 'kernel' is 'fast', "),
    ([["rbf", None, True, 0, 0]], "row 1: slot 'C' is missing; allowed: 0.1"),
    ([["rbf", 10**400, True, 0, 0]], "row 1: slot 'C' is .?1000"),
    ([["rbf", 1, True, "good", 0]], "row 1: column 'accuracy' is 'good'"),
    ([["rbf", 1, True, 1e999, 0]], "row 1: column 'accuracy' is 'inf'|is inf"),
    ([ROWS[0][:4]], "row 1 must have 5 values"),
    ([], "has no row"),
  ],
)
@pytest.mark.parametrize("write", [_json, _csv])
def test_a_wrong_row_is_named(write, rows, message, tmp_path):
  if write is _csv:
    # The header and the names are lines, too.
    message = re.sub(r"row (\d+)", lambda n: f"line {int(n[1]) + 2}", message)
  with pytest.raises(UserError, match=message) as caught:
    tables.load(write(tmp_path, rows), "", "accuracy")
  assert str(caught.value).startswith("`table=")


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"rows": 3}, "no list `rows`"),
    ({"slots": {}}, "no `slots`"),
    ({"columns": []}, "no `columns`"),
    ({"slots": {"C": [[1]]}}, "slot 'C': give a list"),
    ({"slots": SLOTS | {"C": [1, 1]}}, "slot 'C' has the choice 1 twice"),
    ({"slots": SLOTS | {"C": [1, "1"]}}, "'C': two of its choices are written"),
    ({"columns": {"accuracy": {"better": "more"}}}, "`better` is 'more'"),
    ({"columns": {"kernel": {}}}, "column 'kernel': the name is taken"),
    ({"columns": {"file": {}}}, "column 'file': the name is taken"),
  ],
)
def test_a_wrong_header_is_refused(changes, message, tmp_path):
  rows = changes.pop("rows", ROWS)
  with pytest.raises(UserError, match=message):
    tables.load(_json(tmp_path, rows, **changes), "", "accuracy")


def test_blank_lines_count_as_lines(tmp_path):
  path = _csv(tmp_path, [*ROWS[:3], ["fast", 1, True, 0, 0]])
  lines = pathlib.Path(path).read_text().splitlines()
  text = "\n".join([*lines[:3], "", "", *lines[3:]])
  pathlib.Path(path).write_text(text)
  with pytest.raises(UserError, match="line 8: slot 'kernel' is 'fast'"):
    tables.load(path, "", "accuracy")
  assert text.splitlines()[7].startswith("0,fast")


def test_slots_without_rows_are_refused(tmp_path):
  with pytest.raises(UserError, match="`slots` must be integers"):
    tables.load(_npz(tmp_path, slots=np.int32(3)), "", "accuracy")


def test_a_damaged_csv_or_archive_is_refused(tmp_path):
  file = tmp_path / "table.csv"
  for text in ("", "kernel,C\n", f"# {json.dumps(HEADER)}\nkernel,C\n"):
    file.write_text(text)
    with pytest.raises(UserError, match=r"^`table=.*table\.csv`: "):
      tables.load(str(file), "", "accuracy")
  wrong = np.zeros((18, 3), int)
  wrong[7, 1] = 3
  for changes in (
    {"slots": wrong},
    {"slots": np.zeros(3, int)},
    {"slots": np.zeros((18, 2), int)},
    {"accuracy": np.zeros(4)},
    {"header": np.array("{")},
  ):
    with pytest.raises(UserError, match=r"^`table=.*table\.npz`: ") as caught:
      tables.load(_npz(tmp_path, **changes), "", "accuracy")
    if changes.get("slots") is wrong:
      assert "row 8: slot 'C' is 3" in str(caught.value)


def test_only_what_a_table_has_is_proposed(tmp_path, caplog):
  """The table lacks the architectures with C=10, and one number."""
  logging.set_verbosity(logging.INFO)
  rows = [list(row) for row in ROWS if row[1] != 10]
  rows[5][-2] = None
  config = CompareConfig(
    table=_json(tmp_path, rows),
    signal="accuracy",
    report="seconds",
    budget=11,
    trials=3,
  )
  signal, _, constraint = comparison.check(config, ["random"])
  assert "11 architectures of the table have all" in caplog.text
  assert "such as kernel=linear, C=10.0, fit=True" in caplog.text
  found = comparison.run(config, ["random", "evolution", "local"], threads=1)
  for curves in found.values():
    assert curves.found.all()
    # Seconds are positive, as in the file.
    best = max((row for row in rows if row[-2]), key=lambda row: row[-2])
    np.testing.assert_array_equal(curves.report[:, -1], best[-1])
  tokens = np.asarray(signal.space.sample(jax.random.key(0), 50))
  assert (signal.space.number(tokens) >= 0).all()
  assert not constraint.allows(signal.space.missing()[None])[0]
  with pytest.raises(UserError, match="budget=12`: allowed: 10 to 11"):
    comparison.run(CompareConfig(**{**vars(config), "budget": 12}), ["random"])


def test_a_column_is_a_limit_of_any_table(tmp_path):
  config = CompareConfig(
    table=_json(tmp_path),
    signal="accuracy",
    report="accuracy",
    limit="seconds:12.5",
    budget=10,
    trials=2,
  )
  signal, *_ = comparison.check(config, ["random"])
  assert np.sum(~np.isnan(signal.scores)) == 12
  curves = comparison.run(config, ["random"], threads=1)["random"]
  assert curves.signal.max() == max(row[-2] for row in ROWS[:12])


def test_a_controller_is_measured_on_a_table_of_slots(tmp_path):
  config = controller_study.StudyConfig(
    table=_json(tmp_path), signal="accuracy", members=10, measured=9
  )
  with pytest.raises(UserError, match="the table has 18 functions"):
    controller_study.check(config)


def test_a_controller_is_measured_on_what_was_measured(tmp_path):
  rows = [[*row[:3], None if n % 3 == 0 else row[3], row[4]]
          for n, row in enumerate(ROWS)]  # fmt: skip
  config = controller_study.StudyConfig(
    table=_json(tmp_path, rows), signal="accuracy", members=7, measured=5
  )
  table = controller_study.check(config)
  assert len(table.scores) == 12
  tokens = np.asarray(table.space.sample(jax.random.key(0), 100))
  assert np.isfinite(table.scores[table.space.number(tokens)]).all()
  # What the table lacks is no gain or loss.
  kept = table.space.rows.tokens[:2]
  lost = next(
    row[None]
    for row in tables.load(config.table, "", "accuracy").space.rows.tokens
    if table.space.number(row[None])[0] < 0
  )
  decoded = np.concatenate([kept, lost])
  gain = controller_study._mean_known(table, decoded, np.ones(3))
  assert gain == pytest.approx(table.scores[:2].mean() - 1)


def test_a_missing_column_is_named(tmp_path):
  with pytest.raises(UserError, match="its columns are accuracy, seconds"):
    tables.load(_json(tmp_path), "cora", "valid")
