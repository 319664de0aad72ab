"""Writes measured figures into the pages, from benchmarks/results.

python -m benchmarks.tables

A page holds a table between `<!-- table: NAME -->` and `<!-- end of table -->`;
the text between them is replaced. Works without results are "not measured". A
test checks that the pages match the results.
"""

from collections.abc import Callable, Iterable
import json
import pathlib
import re
import statistics

from benchmarks import pairs
from experiments import driver
from nao_jax.runs.files import write

ROOT = pathlib.Path(__file__).parents[1]
_MARKED = re.compile(r"(?s)(<!-- table: (\w+) -->\n).*?(<!-- end of table -->)")
_FOLDER = ROOT / "benchmarks" / "results"
RESULTS = _FOLDER / "side_by_side.json"
_UNKNOWN = "not measured"

# {name of the work: its title}, in the order of the tables.
_WORKS = {
  "supernet_train": "supernet training step",
  "supernet_score": "supernet scoring",
  "nasbench201_train": "NAS-Bench-201, 16 channels: training step",
  "nasbench201_score": "NAS-Bench-201, 16 channels: scoring",
  "nasbench201_small_train": "NAS-Bench-201, 8 channels: training step",
  "nasbench201_small_score": "NAS-Bench-201, 8 channels: scoring",
  "controller_fit": "controller fit, an epoch of 600",
  "propose": "proposals, 100 seeds x 10 steps",
  "rnn_train": "recurrent training step",
  "rnn_score": "recurrent scoring",
}


def pages() -> Iterable[pathlib.Path]:
  """Returns the pages that may hold tables."""
  return ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))


def filled(page: str, results: dict) -> str:
  """Returns the text of a page with updated tables.

  Args:
    page: the text of the page.
    results: the results of `benchmarks.side_by_side`.

  Returns:
    The new text.

  Raises:
    KeyError: the page names an unknown table.
  """
  return _MARKED.sub(
    lambda found: f"{found[1]}\n{TABLES[found[2]](results)}\n\n{found[3]}", page
  )


def ratios(results: dict) -> str:
  """Returns the table of speed ratios alone."""
  head = "| on one machine, in turn | cores | times as fast |", "|---|---|---|"
  rows = [
    f"| {shown} | {_cores(results.get(name))} | {_ratio(results.get(name))} |"
    for name, shown in _WORKS.items()
  ]
  return "\n".join([*head, *rows])


def times(results: dict) -> str:
  """Returns the table of both sides' times, with notes on the measurements."""
  head = "| work | cores | peer, ms | here, ms | peer / here | pairs |"
  rows = [
    f"| {shown} | {_times(results.get(name))} |"
    for name, shown in _WORKS.items()
  ]
  notes: dict[str, list[str]] = {}
  for name, shown in _WORKS.items():
    if name in results:
      notes.setdefault(_note(results[name]), []).append(shown)
  lines = [f"- {', '.join(works)}: {note}" for note, works in notes.items()]
  below = ["", *lines] if lines else []
  return "\n".join([head, "|---|---|---|---|---|---|", *rows, *below])


def measurements(_: dict) -> str:
  """Returns a section for each other file of results.

  Such a file holds `title`, `date`, `machine`, `command`, `columns`, `rows` and
  `note`.
  """
  files = sorted(_FOLDER.glob("*.json"))
  entries = [json.loads(file.read_text(encoding="utf-8")) for file in files]
  return "\n\n".join(section(entry) for entry in entries if "columns" in entry)


def section(entry: dict) -> str:
  """Formats a file of results as a section of a page; see `measurements`."""
  return "\n".join(
    [
      f"## {entry['title']}",
      "",
      _rows(entry),
      "",
      f"{entry['note']} {entry['date']}, {entry['machine']}; "
      f"`{entry['command']}`.".lstrip(),
    ]
  )


def _rows(entry: dict) -> str:
  rows = [entry["columns"], ["---"] * len(entry["columns"]), *entry["rows"]]
  return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)


def _of(name: str, first: str = "") -> Callable[[dict], str]:
  """Returns a function that shows a file of results without its section.

  It shows the rows whose first cell begins with `first`.
  """

  def shown(_: dict) -> str:
    entry = json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    rows = [row for row in entry["rows"] if str(row[0]).startswith(first)]
    return _rows(entry | {"rows": rows})

  return shown


TABLES: dict[str, Callable[[dict], str]] = {
  "measurements": measurements,
  "ranking": _of("shared_ranking_nasbench201"),
  "search_graph": _of("search_nas_bench_graph", "mean"),
  "search_variants": _of("search_variants"),
  "side_by_side": times,
  "untrained": _of("untrained_nasbench201"),
  "side_by_side_ratios": ratios,
}


def _cores(entry: dict | None) -> str:
  return str(len(entry["cores"])) if entry else ""


def _ratio(entry: dict | None) -> str:
  """Formats median, minimum and maximum over pairs."""
  if not entry:
    return _UNKNOWN
  found = pairs.ratios(entry["pairs"])
  median = statistics.median(found)
  return f"**{median:.2f}** ({min(found):.2f} to {max(found):.2f})"


def _times(entry: dict | None) -> str:
  if not entry:
    return f" | {_UNKNOWN} | {_UNKNOWN} | {_UNKNOWN} | "
  cells = [_cores(entry)]
  for side in ("peer", "ours"):
    medians = [1e3 * pair[side]["seconds"] for pair in entry["pairs"]]
    spread = f"{min(medians):.0f} to {max(medians):.0f}"
    cells.append(f"{statistics.median(medians):.0f} ({spread})")
  cells += [_ratio(entry), str(len(entry["pairs"]))]
  return " | ".join(cells)


def _note(entry: dict) -> str:
  """Describes the date, the peer and the machine of a measurement."""
  machine = entry["machine"]
  caches = ", ".join(
    f"{level} {size}" for level, size in machine["caches"].items()
  )
  threads = machine["threads_per_core"]
  shared = f"{threads} threads a core" if threads != 1 else "a thread a core"
  return (
    f"{entry['date']}, commit {(entry['commit'] or 'unknown')[:10]}, against "
    f"{entry['about'] or ' '.join(entry['peer'])}; {machine['cpu']}, "
    f"{len(machine['cores'])} cores, {shared}, "
    f"{machine['operations'] / 1e9:.0f} GFLOP/s in products, "
    f"{machine['bytes'] / 1e9:.1f} GB/s copied, caches {caches}; load before "
    f"{machine['load']}"
  )


def read() -> dict:
  """Returns the results of side by side; empty if the file is missing."""
  if not RESULTS.exists():
    return {}
  return json.loads(RESULTS.read_text(encoding="utf-8"))


def main(_):
  """Writes the tables of all pages."""
  results = read()
  for page in pages():
    old = page.read_text(encoding="utf-8")
    new = filled(old, results)
    if new != old:
      write(page, new)
      print(f"new tables in {page.relative_to(ROOT)}")


if __name__ == "__main__":
  driver.run(main)
