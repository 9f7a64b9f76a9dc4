"""Why two scores of one classifier differ. The door is `report`.

    scores      one test set: accuracy, loss, calibration, each with its interval
    difference  the gap and its interval (G1), and the part that another class mix makes (G7)
    classes     gaps per class, shrunken because most of their spread is chance (G4)
    excess      which classes differ, or lose more than others, tested (G3)
    reliability how far raw class gaps can be trusted; the winner's curse on halves
    confusions  which wrong answers became more or less frequent
    hierarchy   gaps of superclasses
    features    which features shift, and how much the head leans on them (G9)
    margins     which features make a linear head's margins smaller (G8)
    separation  how well each feature separates the classes of each set, and what masking it costs
    masking     a head fitted again without some features, beside random sets (G10)
    reporting   all of it for one head and two test sets

The ids in brackets are those of the method table in README, "What each number means". Everything
is a pure function on arrays; sets are told apart as reference (test set 1) and target (test set 2),
and every gap is reference minus target: positive means worse on the target.
"""

from models.gap.reporting import GapReport, TestSet, report

__all__ = ["GapReport", "TestSet", "report"]
