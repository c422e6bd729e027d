from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipeline.errors import UsageError
from pipeline.settings import set_params


def _lines() -> list[str]:
    return Path("params.yaml").read_text(encoding="utf-8").splitlines()


def test_a_value_changes_and_all_comments_stay(project: Path) -> None:
    before = _lines()
    set_params(["models", "smollm2", "train"], {"learning_rate": 1e-05, "freeze": ["embedding", "head"]})
    changed = [line for line in _lines() if line not in before]
    assert len(changed) == 1
    assert len(_lines()) == len(before)
    train = yaml.safe_load("\n".join(_lines()))["models"]["smollm2"]["train"]
    assert train["learning_rate"] == 1e-05
    assert (train["freeze"], train["batch_size"]) == (["embedding", "head"], 4)


def test_a_missing_section_is_created(project: Path) -> None:
    written = Path("params.yaml").read_text(encoding="utf-8")
    Path("params.yaml").write_text(written.replace("    train: {epochs: 2}\n", ""), encoding="utf-8")
    before = _lines()
    set_params(["models", "bart-tiny", "train"], {"epochs": 5})
    assert yaml.safe_load("\n".join(_lines()))["models"]["bart-tiny"]["train"] == {"epochs": 5}
    assert [line for line in _lines() if line not in before] == ["    train:", "      epochs: 5"]


@pytest.mark.parametrize("model", ["t5", "t5-base"])
def test_a_section_that_others_share_is_not_changed(project: Path, model: str) -> None:
    shared = "models:\n  t5: &t5\n    train: &knobs {epochs: 2}\n  t5-base:\n    <<: *t5\n    train: *knobs\n"
    Path("params.yaml").write_text(shared, encoding="utf-8")
    with pytest.raises(UsageError, match=rf"other sections share models\.{model}\.train"):
        set_params(["models", model, "train"], {"epochs": 5})
    assert Path("params.yaml").read_text(encoding="utf-8") == shared
