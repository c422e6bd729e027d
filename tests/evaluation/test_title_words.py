"""The words of titles."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_stems_need_no_heavy_library_and_hide_none() -> None:
    code = (
        "import sys; from pipeline.evaluation.title_words import stems; print(stems('two recipes'))\n"
        "assert not {'sklearn', 'scipy.stats'} & set(sys.modules)\n"
        "import sklearn, scipy.stats, rouge_score.rouge_scorer"
    )
    python = str(Path(sys.prefix, "bin", "python"))  # `sys.executable` may be a process that has imported them
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "['two', 'recip']\n"), done.stderr
