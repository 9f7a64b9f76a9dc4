"""Features side by side, and one feature by itself."""

from service.gap.distribution import distribution
from service.gap.features import FeaturesOut
from service.pages.frame import Frame

_SHOWN = 200


def all_features(frame: Frame) -> str:
    """Page of the features: shift against weight, and a table of the most relevant."""
    answer = frame.part("features", FeaturesOut)
    features = [] if answer is None else answer.features or []
    return frame.render(
        "features.html", answer=answer, features=features[:_SHOWN], n_features=len(features)
    )


def one_feature(frame: Frame, feature_id: int, class_id: int | None) -> str:
    """Page of one feature: its distribution, of all images and of one class.

    Raises
    ------
    NotFound, LookNotLogged, SealWanted
    """
    answer = None
    if frame.question is not None:
        if frame.question.stored("features") is None:
            frame.ask()
        answer = distribution(frame.site.analysis, frame.question, feature_id, class_id)
    return frame.render(
        "feature.html",
        answer=answer,
        feature_id=feature_id,
        classes=frame.site.analysis.database.class_names(),
    )
