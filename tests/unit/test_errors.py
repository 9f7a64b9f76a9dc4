import pytest

from etl import errors as etl_errors
from models import errors as model_errors
from service import errors as service_errors
from service.errors import STATUS, status_of


def leaves(root):
    children = root.__subclasses__()
    return [leaf for child in children for leaf in leaves(child)] or [root]


ROOTS = [etl_errors.LoadRefused, model_errors.ModelError, service_errors.ServiceError]


@pytest.mark.parametrize("leaf", [leaf for root in ROOTS for leaf in leaves(root)])
def test_every_leaf_error_is_mapped_and_has_its_own_code(leaf):
    assert any(ancestor in STATUS for ancestor in leaf.__mro__)
    if leaf.__module__.startswith(("etl", "models", "service")):
        roots = {root.code for root in ROOTS}
        assert leaf.code not in roots


def test_codes_are_unique():
    codes = [leaf.code for root in ROOTS for leaf in leaves(root)]
    assert len(codes) == len(set(codes))


def test_the_nearest_ancestor_decides():
    class Special(etl_errors.Busy):
        pass

    assert status_of(Special("a", "b", "c")) == 409
    assert status_of(etl_errors.NotFinite("a", "b", "c")) == 422
    assert status_of(ZeroDivisionError()) == 500


def test_a_refusal_names_its_place():
    error = etl_errors.NotFinite(
        "a number", "'nan'", "Repair it.", file="f.csv", line=3, column="2"
    )
    assert str(error) == "f.csv, line 3, column '2': wanted a number, got 'nan'. Repair it."
