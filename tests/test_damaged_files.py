"""A sample of damaged files of every kind in the quick tests, and all of them in the slow ones."""

import damaged_by_hand
import damaged_files
import faulty_kinds
import pytest
from damaged_kinds import KINDS
from watched import Watched


def require_no_fault(results):
    faults = [f"{result.kind}, {result.name}: {result.outcome}: {result.fault}" for result in results if result.fault]
    assert not faults, "\n".join(faults)


def test_a_sample_of_damaged_files_is_refused_or_loaded_whole():
    results = list(damaged_files.run(list(KINDS), mutants=3, seed=100, every=16))
    require_no_fault(results)
    assert {result.kind for result in results} == set(KINDS) and len(results) >= 80
    assert sum(result.outcome == "refused" for result in results) >= 60


def test_the_damages_made_by_hand_are_many_and_of_every_kind():
    assert sum(map(len, damaged_by_hand.DAMAGES.values())) >= 400


@pytest.mark.slow
def test_every_damaged_file_is_refused_or_loaded_whole():
    require_no_fault(damaged_files.run(list(KINDS), mutants=150))


@pytest.fixture(scope="module")
def faulty():
    process = Watched("faulty_kinds", patience=2.0)
    yield process
    process.close()


@pytest.mark.parametrize("fault", faulty_kinds.KINDS)
def test_every_fault_of_a_reader_is_noticed(tmp_path, monkeypatch, faulty, fault):
    monkeypatch.setattr(damaged_files, "MOST_SECONDS", 0.5)
    good = faulty.load(fault, tmp_path / "good")
    assert damaged_files.judged(good, tmp_path / "good", "good", may_differ=False) == ("whole", "")
    _, found = damaged_files.judged(faulty.load(fault, tmp_path / "bad"), tmp_path / "bad", "good", may_differ=False)
    assert found
