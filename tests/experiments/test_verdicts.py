"""The vocabulary of verdicts and the rules behind it."""

import pytest

from experiments.harness import verdicts
from experiments.harness.verdicts import Verdict


def test_only_a_contradicted_publication_and_a_wrong_number_are_red():
    assert {verdict for verdict in Verdict if verdict.colour == "bad"} == {"differs", "wrong"}
    assert {verdict for verdict in Verdict if verdict.colour == "good"} == {"agrees"}
    assert all(verdict.meaning.endswith(".") for verdict in Verdict)


@pytest.mark.parametrize("provenance", [None, "own", "mem", "text", "code", "card"])
def test_what_was_never_published_is_grey_when_it_comes_out_otherwise(provenance):
    assert verdicts.against_source(True, provenance) == "agrees"
    found = verdicts.against_source(False, provenance)
    assert found == ("differs" if provenance in ("text", "code", "card") else "not as expected")
    assert verdicts.otherwise(found)


def test_our_number_is_the_exact_value_or_wrong():
    assert verdicts.against_exact(1.0, 0.1, 1.39) == "agrees"
    assert verdicts.against_exact(1.0, 0.1, 1.41) == "wrong"
    assert verdicts.against_exact(1.0, 0.0, 1.0 + 1e-9, tolerance=1e-8) == "agrees"
    assert verdicts.against_exact(float("nan"), 0.1, 1.0) == "wrong"


def test_a_tiny_run_judges_no_sampled_number():
    assert verdicts.against_exact(1.0, 0.1, 9.0, tiny=True) == "not judged: tiny run"
    assert verdicts.against_exact(1.0, 0.0, 9.0, tiny=True) == "wrong"
    assert verdicts.of_aim(False, "all", tiny=True) == "not judged: tiny run; aim all"
    assert verdicts.of_bias("DIFFERS: claims to be unbiased", tiny=True) == "not judged: tiny run"


def test_an_aim_names_itself_and_the_spread():
    assert verdicts.of_aim(True, "≥ 1", "0.9 to 1.3") == "agrees: aim ≥ 1; 0.9 to 1.3"
    assert verdicts.of_aim(False, "all") == "not as expected: aim all"


@pytest.mark.parametrize(
    ("finding", "verdict"),
    [
        ("unbiased", "agrees: unbiased"),
        ("biased: the error of v", "agrees: biased: the error of v"),
        ("biased", "not judged: biased"),
        ("biased (max |z| 9.0)", "not judged: biased (max |z| 9.0)"),
        ("stated bias not resolved (max |z| 1.0)", "not judged: stated bias not resolved (max |z| 1.0)"),
        ("DIFFERS: claims to be unbiased", "wrong: claims to be unbiased"),
        ("NOT FINITE", "wrong: not finite"),
    ],
)
def test_an_estimator_is_held_against_what_it_says_of_itself(finding, verdict):
    assert verdicts.of_bias(finding) == verdict


def test_words_are_read_back_and_others_are_refused():
    assert verdicts.word_of("agrees: aim: all") is Verdict.AGREES and verdicts.colour_of("wrong: not caught") == "bad"
    assert verdicts.colour_of("reached (aim all)") == "neutral"  # of a result that is older than the vocabulary
    with pytest.raises(ValueError, match="got 'holds'"):
        verdicts.word_of("holds")


def test_many_verdicts_are_counted_and_coloured():
    found = ["agrees", "agrees: aim all", "differs", "differs", "wrong", "not as expected", "not judged: tiny run"]
    assert verdicts.tally(found) == "2 of 6 agree, 2 differ, 1 wrong, 1 not as expected; 1 not judged"
    assert verdicts.tally(["not measured"] * 2) == "2 not measured"
    assert verdicts.colour_of_all(found) == "bad"
    assert verdicts.colour_of_all(["agrees", "not as expected", "not judged"]) == "good"
    assert verdicts.colour_of_all(["not judged: tiny run", "not measured", "not as expected"]) == "neutral"
    assert verdicts.legend(["wrong: not caught", None, "failed"]) == [f"`wrong`: {Verdict.WRONG.meaning}"]
