"""What sets are compared by: annotations, image statistics, difficulty, features."""

import numpy as np

from models.gap.covariates import principal_components
from models.gap.ledger import Group
from service.gap.inputs import Inputs, Sides

_COMPONENTS = 20
_IMAGES_A_COMPONENT = 25  # of the smaller set: fewer would let the domain classifier learn by heart
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
                "images of which the model is equally sure are equally hard on both splits; it "
                "sees only the difficulty that it knows of",
            )
        )
    if inputs.features is not None:
        fewest = min(len(rows) for rows in inputs.features.pair)
        wanted = min(_COMPONENTS, inputs.features.reference.shape[1])
        components = principal_components(
            *inputs.features.pair,
            scale=inputs.train_sd,
            n_components=max(2, min(wanted, fewest // _IMAGES_A_COMPONENT)),
        )
        groups.append(
            Group(
                FEATURES,
                np.concatenate(components).astype(float),
                "images alike in the directions in which the features spread most are equally "
                "hard on both splits",
                n_knots=_FEATURE_KNOTS,
            )
        )
    return groups, left_out


def _both(values: Sides[np.ndarray]) -> np.ndarray:
    return np.concatenate(values.pair)
