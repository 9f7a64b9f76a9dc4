"""What sets are compared by: annotations, image statistics, difficulty, features."""

import numpy as np

from models.gap.ledger import Group
from service.gap.inputs import Inputs, Sides

_FEATURE_KNOTS = 4
_LEVELS_MAX = 12
DIFFICULTY, FEATURES, STATISTICS = "difficulty", "features", "image statistics"


def groups_of(inputs: Inputs) -> tuple[list[Group], list[str]]:
    """Return groups in that order, and the annotations that are none of them, with the reason.

    A group without its inputs (features of an imported model, say) is left out.
    """
    groups, left_out = [], []
    statistics = []
    for annotation in inputs.annotations:
        if not annotation.on_both:
            left_out.append(f"{annotation.name}: known on one split only")
        elif annotation.categories is not None and len(annotation.categories) > _LEVELS_MAX:
            left_out.append(f"{annotation.name}: a text with more than {_LEVELS_MAX} values")
        elif inputs.is_image_statistic(annotation):
            statistics.append(annotation)
        else:
            groups.append(
                Group(
                    annotation.name,
                    _both(annotation.values)[:, None],
                    "images alike in it are alike in difficulty on both splits, and it means the "
                    "same on both",
                )
            )
    if statistics:
        groups.append(
            Group(
                STATISTICS,
                np.column_stack([_both(one.values) for one in statistics]),
                "images alike in brightness, sharpness and the like are alike in difficulty",
            )
        )
    if inputs.covariates is not None:
        groups.append(
            Group(
                DIFFICULTY,
                np.concatenate([side.columns() for side in inputs.covariates.pair]),
                "images of which the model is equally sure are equally hard on both splits; "
                "difficulty that its scores do not show is not in it",
            )
        )
    if inputs.components is not None:
        groups.append(
            Group(
                FEATURES,
                _both(inputs.components).astype(float),
                "images alike in the directions in which the features spread most are equally "
                "hard on both splits",
                n_knots=_FEATURE_KNOTS,
            )
        )
    return groups, left_out


def _both(values: Sides[np.ndarray]) -> np.ndarray:
    return np.concatenate(values.pair)
