"""Training: a form for a new head, and how the present ones came about."""

from service import trainings
from service.options import HEADS
from service.pages.frame import Frame, Site


def train(site: Site) -> str:
    """Page with a form for POST /train, and all models."""
    frame = Frame(site, "train")
    database = site.analysis.database
    rows = database.splits() if database.exists else []
    return frame.render(
        "train.html",
        backbones=[row["backbone"] for row in rows if row["role"] == "train" and row["backbone"]],
        heads=HEADS,
    )


def of_model(frame: Frame) -> str:
    """Page of one model's training: what was tried on train rows, and what was chosen."""
    assert frame.model is not None
    results = frame.site.analysis.results
    board = trainings.leaderboard(results, frame.model)
    return frame.render(
        "training.html",
        card=results.card(frame.model),
        board=board,
        why_flattered=trainings.why_flattered(board.candidates),
        has_curves=bool(results.curves(frame.model)),
    )
