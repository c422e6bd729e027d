"""The law of cleaning: what a registered version names never goes."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pipeline.maintenance.cache_objects import Cache, CachedRun, unneeded

FILES = [f"{n:032x}" for n in range(8)]
FOLDERS = [f"{n:032x}.dir" for n in range(8, 12)]
HASHES = [*FILES, *FOLDERS]
TIMES = st.floats(0, 100)


@st.composite
def caches(draw: st.DrawFn) -> Cache:
    objects = draw(st.dictionaries(st.sampled_from(HASHES), TIMES))
    folders = {folder: draw(st.frozensets(st.sampled_from(FILES))) for folder in FOLDERS if folder in objects}
    outs = draw(st.lists(st.frozensets(st.sampled_from(HASHES))))
    runs = [CachedRun(Path(f"run-{n}"), found, draw(TIMES)) for n, found in enumerate(outs)]
    return Cache(objects, folders, tuple(runs))


def with_files(hashes: set[str] | frozenset[str], cache: Cache) -> set[str]:
    return {*hashes, *(file for folder in hashes for file in cache.folders.get(folder, ()))}


@given(caches(), st.frozensets(st.sampled_from(HASHES)), st.frozensets(st.sampled_from(HASHES)), TIMES)
def test_objects_of_versions_and_of_the_project_stay_with_all_their_files(
    cache: Cache, versions: frozenset[str], projects: frozenset[str], before: float
) -> None:
    going = unneeded(cache, versions=versions, projects=projects, before=before)
    assert going.objects.isdisjoint(with_files(versions | projects, cache))
    assert going.objects.isdisjoint(with_files(cache.objects.keys() - going.objects, cache))


@given(caches(), st.frozensets(st.sampled_from(HASHES)), TIMES)
def test_all_outputs_of_a_stage_that_made_a_version_stay(cache: Cache, versions: frozenset[str], before: float) -> None:
    going = unneeded(cache, versions=versions, projects=frozenset(), before=before)
    for run in cache.runs:
        if run.outs & versions:
            assert run not in going.runs
            assert going.objects.isdisjoint(with_files(run.outs, cache))


@given(caches(), st.frozensets(st.sampled_from(HASHES)), st.frozensets(st.sampled_from(HASHES)), TIMES)
def test_recent_entries_stay_and_older_ones_only_if_needed(
    cache: Cache, versions: frozenset[str], projects: frozenset[str], before: float
) -> None:
    going = unneeded(cache, versions=versions, projects=projects, before=before)
    assert all(cache.objects[digest] < before for digest in going.objects)
    assert all(run.when < before for run in going.runs)
    left = Cache(
        {digest: when for digest, when in cache.objects.items() if digest not in going.objects},
        {folder: files for folder, files in cache.folders.items() if folder not in going.objects},
        tuple(run for run in cache.runs if run not in going.runs),
    )
    again = unneeded(left, versions=versions, projects=projects, before=before)
    assert not again.objects
    assert not again.runs


def test_an_old_unnamed_result_is_removed_with_its_files() -> None:
    cache = Cache(dict.fromkeys([FILES[0], FOLDERS[0]], 1.0), {FOLDERS[0]: frozenset([FILES[0]])}, ())
    cache = Cache(cache.objects, cache.folders, (CachedRun(Path("run"), frozenset([FOLDERS[0]]), 1.0),))
    going = unneeded(cache, versions=frozenset(), projects=frozenset(), before=2.0)
    assert (going.objects, going.runs) == (frozenset([FILES[0], FOLDERS[0]]), cache.runs)
