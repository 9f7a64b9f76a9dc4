"""Numbers that people read: no sign of a zero, no end that is rounded to 0 unless it is 0."""

from service.pages.rendering import rounded
from service.report.material import size
from service.report.numbers import Answer
from service.sentences import points


def test_a_zero_has_no_sign():
    assert points(-0.00001, 0.02) == "0.00 to 2.00"
    assert rounded(-0.04) == "0.0"
    assert rounded(0.04, signed=True) == "0.0"


def test_a_gap_below_0_is_said_without_its_sign_and_with_rising_ends():
    answer = Answer("/gap/m", {"gap": {"estimate": -0.053, "low": -0.08, "high": -0.025}}, {}, None)
    written = "".join(one if isinstance(one, str) else one.text for one in size(answer, "/gap"))
    assert written == "5.3 percentage points (95 % interval 2.5 to 8.0)"
