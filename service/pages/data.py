"""What is loaded, and who looked at labels of test sets."""

from service.pages.frame import Frame, Site

_LOOKS_SHOWN = 20


def loaded(site: Site) -> str:
    """Page of splits, load report, annotations and looks."""
    frame = Frame(site, "data")
    database = site.analysis.database
    report = []
    if database.exists:
        report = database.rows(
            "select split, backbone, n_rows_read, n_images, n_rejected, n_features, n_classes, "
            "notes, loaded_at from load_report order by loaded_at, split"
        )
    return frame.render(
        "data.html",
        report=report,
        annotations=database.annotations() if database.exists else [],
        looks=site.looks.all()[:_LOOKS_SHOWN],
    )
