"""Whether a run that goes on still has the data that it began with."""

# What settings call a digest of data, and that in words.
DIGESTS = {
  "data.train": "the training part of `{}`",
  "data.test": "the test part of `{}`",
  "corpus": "the text `{}`",
  "latency_table": "the table of latencies",
}
# What they call the name of the data.
_NAMES = ("dataset", "config.dataset", "text", "config.text")


def refusal(there: dict, here: dict, version: str | None) -> str | None:
  """Why a run cannot go on with the data of today, in words; None if it can.

  Args:
    there: the settings that it began with.
    here: those of today, which differ in digests at most.
    version: of the program that began it.
  """
  changed = [
    words for key, words in DIGESTS.items() if there.get(key) != here.get(key)
  ]
  if not changed:
    return None
  if unknown := [key for key in DIGESTS if key in here and key not in there]:
    return (
      f"holds a run of nao_jax {version or 'of unknown version'}, which kept "
      f"no digest of its data ({', '.join(unknown)}), so that nothing tells "
      "whether they are the same today; give another --workdir, or finish it "
      "with that version"
    )
  name = next((here[key] for key in _NAMES if key in here), "")
  parts = " and ".join(words.format(name) for words in changed)
  return (
    f"holds a run on other data: {parts} changed since it began (contents, not "
    "names, are compared); give another --workdir for the data of today, or "
    "the data as they were to go on"
  )
