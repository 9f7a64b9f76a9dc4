"""What is called a finding, in which order, and what is said not to be known."""

from service.gap.findings import findings_of, unknown_of
from service.gap.ledger import LedgerOut, OverlapOut, TermOut
from service.gap.line import FitOut, LineOut
from service.schemas import EstimateOut


def estimate(value, low, high):
    return EstimateOut(
        estimate=value, low=low, high=high, level=0.95, method="m", n={"a": 1, "b": 1},
        unit="fraction", seed=0, reason=None,
    )  # fmt: skip


def term(name, value, low, high, verdict, *, reason=None, share=None):
    return TermOut(
        name=name, estimate=value, low=low, high=high, share=None, alone=None, auc=None,
        effective_share=share, interval="i", reason=reason, method="m", assumptions="x is so",
        verdict=verdict,
    )  # fmt: skip


def ledger(*terms, left_out=()):
    return LedgerOut(
        model="m", reference="val", target="v2", summary=[], gap=estimate(0.1, 0.05, 0.15),
        terms=list(terms), overlap=OverlapOut(auc=None, calibration_error=None,
                                              effective_share=None), left_out=list(left_out),
    )  # fmt: skip


REST = term("rest", 0.02, -0.01, 0.05, "underpowered")


def test_only_supported_terms_are_findings_and_the_largest_comes_first():
    answer = ledger(
        term("difficulty", 0.02, 0.01, 0.03, "supported"),
        term("human_agreement", -0.05, -0.06, -0.04, "supported"),
        term("features", 0.3, -0.2, 0.8, "underpowered"),
        REST,
    )
    found = findings_of({"ledger": answer})
    assert [one.name for one in found] == ["human_agreement", "difficulty"]
    assert found[0].sentence.startswith("-5.0 points of the gap (95 % interval -6.0 to -4.0)")
    assert "less sure" in found[1].sentence
    assert found[0].points == 0.05


def test_weak_overlap_is_the_caveat():
    answer = ledger(term("difficulty", 0.02, 0.01, 0.03, "supported", share=0.1), REST)
    assert findings_of({"ledger": answer})[0].caveat.startswith("Weak overlap")


def test_what_cannot_be_known_is_said():
    answer = ledger(
        term("features", None, None, None, "refused (no overlap)", reason="no common images"),
        REST,
        left_out=["votes: known on one split only"],
    )
    said = " ".join(unknown_of({"ledger": answer}))
    for words in ("+2.0 points", "no common images", "votes: known", "no annotation of both"):
        assert words in said


def test_the_answer_holds_ledger_findings_and_unknown(client):
    answer = client.get("/gap/logistic").json()
    assert answer["pending"] in ([], ["leaks"], ["map"], ["map", "leaks"])
    assert answer["ledger"]["gap"]["estimate"] == answer["gap"]["estimate"]
    assert len(answer["findings"]) <= 5
    sizes = [finding["points"] for finding in answer["findings"]]
    assert sizes == sorted(sizes, reverse=True)
    assert answer["unknown"]
    assert {"classes", "features", "class_shift", "summary"} <= set(answer)


def line(low, high, *, extrapolated=False):
    fit = FitOut.model_construct(
        source="models here", n=3, is_main=True, extrapolated=extrapolated,
        predicted=estimate(0.8, 0.7, 0.9), effective_robustness=estimate(0.01, low, high),
    )  # fmt: skip
    accuracy = {"val": estimate(0.9, 0.88, 0.92)}
    return LineOut.model_construct(reference="val", target="v2", accuracy=accuracy, fits=[fit])


def test_a_line_that_shows_nothing_is_no_finding():
    assert len(findings_of({"line": line(-0.02, 0.04)})) == 1
    # 0 is in it, and so is everything else
    assert findings_of({"line": line(-1.5, 1.5)}) == []
    assert findings_of({"line": line(-0.02, 0.04, extrapolated=True)}) == []
    assert findings_of({"line": line(0.005, 0.02, extrapolated=True)}) == []


def test_a_term_below_0_goes_with_the_surer_images():
    part = ledger(term("difficulty", -0.03, -0.05, -0.01, "supported"), REST)
    assert "more sure" in findings_of({"ledger": part})[0].sentence


def test_a_rest_that_is_not_told_from_0_is_not_taken_as_there():
    said = unknown_of({"ledger": ledger(REST)})
    assert any(one.startswith("Whether there is a rest at all") for one in said)
    told = unknown_of({"ledger": ledger(term("rest", 0.04, 0.01, 0.07, "supported"))})
    assert any(one.startswith("What the rest, +4.0 points") for one in told)
