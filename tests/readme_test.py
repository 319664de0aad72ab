import pathlib
import re

import numpy as np

README = pathlib.Path(__file__).parents[1] / "README.md"


def test_the_example_in_the_readme_decodes_architectures():
  (example,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
  names = {}
  exec(compile(example, str(README), "exec"), names)
  proposals = np.asarray(names["proposals"])
  assert len(proposals) == len(names["seeds"])
  assert all(map(names["controller"].space.accepts, proposals.tolist()))
