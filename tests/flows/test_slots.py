import pytest

from flows.slots import devices
from pipeline.errors import Misused


@pytest.mark.parametrize(
    ("visible", "asked", "expected"),
    [
        ("", None, [""]),
        ("-1", None, [""]),
        ("0", None, ["0"]),
        ("3, 5", None, ["3", "5"]),
        ("3,5", "1", ["3"]),
        ("0", "2", ["0", "0"]),
        ("", "2", ["", ""]),
    ],
)
def test_there_is_a_slot_for_each_device_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, visible: str, asked: str | None, expected: list[str]
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    if asked:
        monkeypatch.setenv("LECTERN_GPU_SLOTS", asked)
    assert devices() == expected


@pytest.mark.parametrize("asked", ["0", "-1", "many", ""])
def test_a_number_of_slots_that_makes_no_sense_is_a_misuse(monkeypatch: pytest.MonkeyPatch, asked: str):
    monkeypatch.setenv("LECTERN_GPU_SLOTS", asked)
    with pytest.raises(Misused, match="LECTERN_GPU_SLOTS"):
        devices()
