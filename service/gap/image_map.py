"""`/gap/{model}/map`: images on two axes, groups of alike ones, and the gap of each group."""

from collections import Counter
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from models import estimate
from models.errors import NoTrainRows
from models.gap.difference import newcombe
from models.gap.embedding import FEWEST_FOR_UMAP, MAIN_AXES, principal_axes, umap_of
from models.gap.slices import SliceGap, clusters_of, slice_gaps
from models.heads import TrainRows
from service import charts
from service.errors import NotFound, NothingToDraw
from service.evaluations import SEED
from service.gap.inputs import Inputs, Sides
from service.gap.part import Part
from service.schemas import Answer, EstimateOut, PartOut
from service.sentences import NO_FEATURES, points
from service.terminal import Progress, part_of

NAME = "map"
Method = Literal["pca", "umap"]
PCA: Method = "pca"
UMAP: Method = "umap"
BY_SPLIT, BY_ANSWER, BY_CLUSTER = "split", "answer", "cluster"
_ANNOTATION = "annotation."
SHOWN, PER_PAGE_MAX = 24, 200
_TESTS_MOST, _TRAIN_MOST = 1500, 1000  # images of each split on the map
_CLUSTERS_MOST = 12
_ANNOTATIONS_MOST = 2
_LEVELS_MAX = 12  # kinds of an annotation that colours can tell
_DIGITS = 4  # of a coordinate, so that a map of 4,000 images stays below 300 kB
_Q = 0.05
_NAMED = 3
_NO_UMAP = "umap-learn is not installed (pip install '.[map]')"
_FEW = f"fewer than {FEWEST_FOR_UMAP} images"
_PICTURE = (
    "UMAP keeps near images near; how far groups lie apart and how large they look means little in "
    "it. It was fitted on train and test images without labels: a picture that no head reads."
)


class MethodOut(Answer):
    """One way to lay the images out; coordinates in the order of `points`."""

    name: Method
    x: list[float] | None
    y: list[float] | None
    axis_shares: list[float] | None = Field(
        description="Share of the train rows' variance along each axis; null for UMAP."
    )
    reason: str | None = Field(description="Why there are no coordinates.")


class ColumnOut(Answer):
    """What an annotation says of the points."""

    name: str
    categories: list[str] | None = Field(description="Which values are numbers of; null: numbers.")
    values: list[float | None]


class PointsOut(Answer):
    """The images on the map, column by column."""

    image_id: list[int | None] = Field(description="Null where the image is gone.")
    split: list[int] = Field(description="Place in `splits`.")
    class_id: list[int]
    predicted: list[int | None] = Field(description="Null for train images.")
    correct: list[bool | None]
    cluster: list[int | None]


class ClusterOut(Answer):
    """A group of alike images, of all images of both splits."""

    cluster: int
    classes: str = Field(description="Its most frequent classes on both test splits.")
    n_reference: int
    n_target: int
    accuracy_reference: EstimateOut
    accuracy_target: EstimateOut
    gap: EstimateOut
    excess: float | None = Field(description="Gap minus the gap of all images.")
    p_value: float | None = Field(description="Test that it loses what all images lose.")
    q_value: float | None = Field(description="Adjusted for looking at all clusters.")
    verdict: str


class MapOut(PartOut):
    """A map of a sample of the images, and clusters of all of them."""

    gap: EstimateOut
    splits: list[str] = Field(description="train, then the names of reference and target.")
    n_images: list[int] = Field(description="Images of each of `splits`.")
    n_shown: list[int] = Field(description="Of which so many are on the map, drawn at random.")
    seed: int
    points: PointsOut | None
    methods: list[MethodOut]
    annotations: list[ColumnOut]
    clusters: list[ClusterOut] | None = Field(description="Largest excess first.")
    clusters_reason: str | None = Field(description="Why clusters are null.")
    reason: str | None = Field(description="Why there is no map.")


class MappedImageOut(Answer):
    """An image on the map."""

    image_id: int | None
    split: str
    path: str
    class_id: int
    class_name: str
    predicted: int | None
    predicted_name: str | None
    correct: bool | None
    cluster: int | None


class MapImagesOut(Answer):
    """One page of the images of a part of the map."""

    model: str
    reference: str
    target: str
    n: int = Field(description="Images on the map that meet all conditions.")
    page: int
    per_page: int
    images: list[MappedImageOut]


def compute(inputs: Inputs, progress: Progress) -> MapOut:
    """Draw a sample, lay it out, group all images."""
    n_right = [int(side.sum()) for side in inputs.correct.pair]
    n_tests = [len(side) for side in inputs.correct.pair]
    gap = newcombe(n_right[0], n_tests[0], n_right[1], n_tests[1])
    train, reason = None, NO_FEATURES
    if inputs.features is not None:
        try:
            train = inputs.database.train_rows(inputs.backbone)
        except NoTrainRows as error:
            reason = f"there are no train rows to lay axes through: {error}"
    if train is None or inputs.features is None:
        return _unknown(inputs, gap, n_tests, reason)
    progress(0.0, "reading train rows")
    rng = np.random.default_rng(SEED)
    rows, paths = train
    chosen = _drawn(rng, len(rows.labels), _TRAIN_MOST)
    sides = Sides(*(_drawn(rng, n, _TESTS_MOST) for n in n_tests))
    sample = _rows_at(rows, chosen, part_of(progress, 0.0, 0.2))
    tests = np.concatenate([
        side[place] for side, place in zip(inputs.features.pair, sides.pair, strict=True)
    ])  # fmt: skip
    progress(0.2, "principal axes")
    methods = [_pca(sample, tests), _umap(sample, tests, part_of(progress, 0.3, 0.9))]
    progress(0.9, "clusters")
    where = _clusters(inputs, sample, len(np.unique(rows.labels)))
    columns = _columns(inputs, rows.labels[chosen], [paths[i] for i in chosen], sides, where)
    inputs.beside[NAME] = _table(inputs, columns, methods)
    clusters = None if where is None else _gaps(inputs, where[1])
    clusters_reason = (
        None if where else "there are too few train rows, or none of their features varies"
    )
    n_images = [len(rows.labels), *n_tests]
    n_shown = [len(chosen), *(len(side) for side in sides.pair)]
    return MapOut(
        model=inputs.model, reference=inputs.reference, target=inputs.target,
        summary=_in_words(inputs, n_images, n_shown, methods, clusters, clusters_reason),
        gap=EstimateOut.of(gap, inputs.names), splits=["train", *inputs.splits.pair],
        n_images=n_images, n_shown=n_shown, seed=SEED,
        points=PointsOut(**{name: columns[name] for name in PointsOut.model_fields}),
        methods=methods, annotations=_annotations(inputs, len(chosen), sides), clusters=clusters,
        clusters_reason=clusters_reason, reason=None,
    )  # fmt: skip


def _unknown(inputs: Inputs, gap: estimate.Estimate, n_tests: list[int], reason: str) -> MapOut:
    return MapOut(
        model=inputs.model, reference=inputs.reference, target=inputs.target,
        summary=[f"Map of the images: unknown ({reason})."],
        gap=EstimateOut.of(gap, inputs.names), splits=["train", *inputs.splits.pair],
        n_images=[0, *n_tests], n_shown=[0, 0, 0], seed=SEED, points=None,
        methods=[MethodOut(name=m, x=None, y=None, axis_shares=None, reason=reason)
                 for m in (PCA, UMAP)],
        annotations=[], clusters=None, clusters_reason=reason, reason=reason,
    )  # fmt: skip


def _drawn(rng: np.random.Generator, n: int, most: int) -> np.ndarray:
    return np.arange(n) if n <= most else np.sort(rng.choice(n, most, replace=False))


def _rows_at(rows: TrainRows, places: np.ndarray, progress: Progress) -> np.ndarray:
    """Train rows at rising places; what lies between them is not read."""
    runs = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)
    found = []
    for i, run in enumerate(runs):
        if len(run):
            found.append(rows.features[int(run[0]) : int(run[-1]) + 1])
        progress(i / len(runs), "reading train rows")
    return np.concatenate(found)


def _pca(train: np.ndarray, tests: np.ndarray) -> MethodOut:
    axes = principal_axes(train)
    if axes is None or len(axes.shares) < 2:
        reason = "fewer than two features vary among the train rows"
        return MethodOut(name=PCA, x=None, y=None, axis_shares=None, reason=reason)
    x, y = np.concatenate([axes.of(train), axes.of(tests)]).T
    shares = [round(float(share), _DIGITS) for share in axes.shares]
    return MethodOut(name=PCA, x=_rounded(x), y=_rounded(y), axis_shares=shares, reason=None)


def _umap(train: np.ndarray, tests: np.ndarray, progress: Progress) -> MethodOut:
    found, reason = None, _FEW
    if len(train) + len(tests) >= FEWEST_FOR_UMAP:
        progress(0.0, "UMAP")
        try:
            found = umap_of(train, tests, seed=SEED)
        except ImportError:
            reason = _NO_UMAP
    if found is None:
        return MethodOut(name=UMAP, x=None, y=None, axis_shares=None, reason=reason)
    x, y = found.T
    return MethodOut(name=UMAP, x=_rounded(x), y=_rounded(y), axis_shares=None, reason=None)


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.{_DIGITS}g}") for value in values]


def _clusters(
    inputs: Inputs, train: np.ndarray, n_classes: int
) -> tuple[np.ndarray, Sides[np.ndarray]] | None:
    """Cluster of each sampled train row, and of every image of both splits."""
    assert inputs.features is not None
    axes = principal_axes(train, MAIN_AXES)
    if axes is None:
        return None
    # by direction: single images far out would else be clusters of their own
    rows, sides = axes.heading(train), inputs.features.map(axes.heading)
    n = rows.shape[1]
    found = clusters_of(
        rows, train_mean=np.zeros(n), train_sd=np.ones(n), seed=SEED,
        n_clusters=min(_CLUSTERS_MOST, n_classes),
    )  # fmt: skip
    return None if found is None else (found.of(rows), sides.map(found.of))


def _columns(
    inputs: Inputs,
    train_labels: np.ndarray,
    train_paths: list[str],
    sides: Sides[np.ndarray],
    where: tuple[np.ndarray, Sides[np.ndarray]] | None,
) -> dict[str, Any]:
    """Columns of the points: train, reference, target."""
    paths = pa.array(train_paths, pa.string())
    train_ids, ids = inputs.train_image_ids(paths), inputs.image_ids
    n, n_tests = len(train_labels), sum(len(side) for side in sides.pair)

    def of_tests(values: Sides[np.ndarray]) -> list[Any]:
        taken = [value[place] for value, place in zip(values.pair, sides.pair, strict=True)]
        return list(np.concatenate(taken).tolist())

    test_paths = [
        path for side, place in zip(inputs.paths.pair, sides.pair, strict=True)
        for path in side.take(pa.array(place)).to_pylist()
    ]  # fmt: skip
    return {
        "image_id": [one if one >= 0 else None for one in [*train_ids.tolist(), *of_tests(ids)]],
        "split": np.repeat([0, 1, 2], [n, *(len(side) for side in sides.pair)]).tolist(),
        "path": [*train_paths, *test_paths],
        "class_id": [*train_labels.tolist(), *of_tests(inputs.labels)],
        "predicted": [*([None] * n), *of_tests(inputs.predicted)],
        "correct": [*([None] * n), *of_tests(inputs.correct)],
        "cluster": [None] * (n + n_tests)
        if where is None
        else [*where[0].tolist(), *of_tests(where[1])],
    }


def _annotations(inputs: Inputs, n_train: int, sides: Sides[np.ndarray]) -> list[ColumnOut]:
    """Return the first annotations of both splits whose kinds colours can tell."""
    fit = [
        one for one in inputs.annotations
        if one.on_both and len(one.categories or []) <= _LEVELS_MAX
    ]  # fmt: skip
    found = []
    for one in fit[:_ANNOTATIONS_MOST]:
        values = np.concatenate([
            side[place] for side, place in zip(one.values.pair, sides.pair, strict=True)
        ])  # fmt: skip
        told = [float(f"{v:.3g}") if np.isfinite(v) else None for v in values]
        found.append(
            ColumnOut(name=one.name, categories=one.categories, values=[*([None] * n_train), *told])
        )
    return found


def _table(inputs: Inputs, columns: dict[str, Any], methods: list[MethodOut]) -> pa.Table:
    """Return the points with their names: what lists of images are answered from."""
    names = inputs.class_names
    splits = np.array(["train", *inputs.splits.pair], object)
    n = len(columns["path"])
    table = {
        "image_id": pa.array(columns["image_id"], pa.int64()),
        "split": pa.array(splits[columns["split"]], pa.string()),
        "path": pa.array(columns["path"], pa.string()),
        "class_id": pa.array(columns["class_id"], pa.int64()),
        "class_name": pa.array([names.get(c, str(c)) for c in columns["class_id"]], pa.string()),
        "predicted": pa.array(columns["predicted"], pa.int64()),
        "predicted_name": pa.array(
            [None if c is None else names.get(c, str(c)) for c in columns["predicted"]], pa.string()
        ),
        "correct": pa.array(columns["correct"], pa.bool_()),
        "cluster": pa.array(columns["cluster"], pa.int64()),
    }
    for method in methods:
        for axis, values in (("x", method.x), ("y", method.y)):
            column = pa.nulls(n, pa.float64()) if values is None else pa.array(values)
            table[f"{method.name}_{axis}"] = column
    return pa.table(table)


def page_of(
    table: pa.Table,
    method: Method,
    x: tuple[float | None, float | None],
    y: tuple[float | None, float | None],
    cluster: int | None,
    *,
    page: int,
    per_page: int,
) -> tuple[int, list[MappedImageOut]]:
    """Return how many points lie in a rectangle of the map and in a cluster, and a page of them.

    Wrong images of the tests come first, then right ones, then train images.

    Parameters
    ----------
    table
        The rows that the part keeps beside its answer.
    x, y
        Ends of the rectangle, both within it; None where it is open.
    cluster
        None: whatever it is.
    page
        From 1 on.
    """
    for axis, (low, high) in (("x", x), ("y", y)):
        column = f"{method}_{axis}"
        if low is not None:
            table = table.filter(pc.greater_equal(table[column], low))
        if high is not None:
            table = table.filter(pc.less_equal(table[column], high))
    if cluster is not None:
        table = table.filter(pc.equal(table["cluster"], cluster))
    rank = pc.fill_null(pc.cast(table["correct"], pa.int8()), 2)
    order = pc.sort_indices(
        pa.table({"rank": rank, "place": pa.array(np.arange(len(table)))}),
        sort_keys=[("rank", "ascending"), ("place", "ascending")],
    )
    rows = table.take(order[(page - 1) * per_page : page * per_page])
    fields = list(MappedImageOut.model_fields)
    return len(table), [MappedImageOut(**row) for row in rows.select(fields).to_pylist()]


def _gaps(inputs: Inputs, where: Sides[np.ndarray]) -> list[ClusterOut]:
    correct, labels = inputs.correct, inputs.labels
    n = 1 + max(int(side.max(initial=-1)) for side in where.pair)
    gaps = slice_gaps(where.reference, correct.reference, where.target, correct.target, n_slices=n)
    found = []
    for i, one in enumerate(gaps):
        if one.n_reference + one.n_target == 0:
            continue
        inside = where.map(lambda side, i=i: side == i)  # type: ignore[misc]
        k = [int(c[s].sum()) for c, s in zip(correct.pair, inside.pair, strict=True)]
        accuracies = [
            EstimateOut.of(estimate.share(right, of), {"images": split})
            for right, of, split in zip(
                k, (one.n_reference, one.n_target), inputs.splits.pair, strict=True
            )
        ]
        there = np.concatenate([c[s] for c, s in zip(labels.pair, inside.pair, strict=True)])
        found.append(
            ClusterOut(
                cluster=i,
                classes=_mostly(there, inputs.class_names),
                n_reference=one.n_reference,
                n_target=one.n_target,
                accuracy_reference=accuracies[0],
                accuracy_target=accuracies[1],
                gap=EstimateOut.of(one.gap, inputs.names),
                excess=one.excess,
                p_value=one.p_value,
                q_value=one.q_value,
                verdict=_verdict(one, inputs),
            )
        )  # fmt: skip
    return sorted(found, key=lambda c: (-c.excess if c.excess is not None else np.inf, c.cluster))


def _mostly(labels: np.ndarray, names: dict[int, str]) -> str:
    counted = Counter(labels.tolist()).most_common(_NAMED)
    return ", ".join(f"{names.get(c, str(c))} ({k / len(labels):.0%})" for c, k in counted)


def _verdict(one: SliceGap, inputs: Inputs) -> str:
    if one.n_reference == 0 or one.n_target == 0:
        return f"only images of {inputs.target if one.n_reference == 0 else inputs.reference}"
    if one.q_value is None or one.q_value > _Q or one.excess is None:
        return "not shown to differ from all images"
    return f"its gap is {'larger' if one.excess > 0 else 'smaller'} than that of all images"


def _in_words(
    inputs: Inputs,
    n_images: list[int],
    n_shown: list[int],
    methods: list[MethodOut],
    clusters: list[ClusterOut] | None,
    reason: str | None,
) -> list[str]:
    shown = ", ".join(
        f"{some:,} of {n:,} {'train images' if i == 0 else f'images of {split}'}"
        for i, (some, n, split) in enumerate(
            zip(n_shown, n_images, ["train", *inputs.splits.pair], strict=True)
        )
    )
    said = [f"The map shows {shown}, drawn at random."]
    pca, umap = methods
    if pca.axis_shares is not None:
        first, second = pca.axis_shares
        said.append(
            f"Its two axes are those in which train images differ most, and hold {first:.0%} and "
            f"{second:.0%} of their variance: what differs in other directions is not seen."
        )
    else:
        said.append(f"No principal axes: {pca.reason}.")
    said.append(_PICTURE if umap.reason is None else f"No UMAP: {umap.reason}.")
    if clusters is None:
        said.append(f"No clusters: {reason}.")
        return said
    clear = [one for one in clusters if one.q_value is not None and one.q_value <= _Q]
    said.append(
        f"{len(clear)} of {len(clusters)} clusters of images have another gap than all images, "
        "adjusted for looking at all of them: a description, not a cause."
        if clear
        else f"None of {len(clusters)} clusters of images is shown to have another gap than all "
        "images."
    )
    largest = sorted(clear, key=lambda one: -abs(one.excess or 0.0))[:_NAMED]
    return said + [
        f"Cluster {one.cluster} ({one.classes}): gap {one.gap.estimate * 100:.1f} points "
        f"({points(one.gap.low, one.gap.high)})."
        for one in largest
        if one.gap.estimate is not None and one.gap.low is not None and one.gap.high is not None
    ]


def _on_axes(answer: MapOut, name: Method) -> tuple[MethodOut, list[float], list[float]]:
    """Return a method with its coordinates.

    Raises
    ------
    NothingToDraw
    """
    method = next(one for one in answer.methods if one.name == name)
    if method.x is None or method.y is None or answer.points is None:
        raise NothingToDraw(
            f"wanted a map of the images for {answer.model!r} by {name}, but {method.reason}."
        )
    return method, method.x, method.y


def axis_titles(method: MethodOut) -> tuple[str, str]:
    """Titles of the axes of a map."""
    if method.axis_shares is None:
        return "UMAP 1", "UMAP 2"
    first, second = method.axis_shares
    return (
        f"first axis ({first:.0%} of the variance in train)",
        f"second axis ({second:.0%})",
    )


def colours(answer: MapOut) -> dict[str, str]:
    """By what points can be coloured, with its name for people."""
    found = {BY_SPLIT: "split", BY_ANSWER: "right or wrong"}
    if answer.clusters is not None:
        found[BY_CLUSTER] = "cluster"
    return found | {f"{_ANNOTATION}{one.name}": one.name for one in answer.annotations}


def spec(answer: MapOut, method: Method, colour: str) -> dict[str, Any]:
    """Vega-Lite spec of the map by one method, coloured by one of `colours`.

    Raises
    ------
    NothingToDraw, NotFound
    """
    laid, x, y = _on_axes(answer, method)
    known = colours(answer)
    if colour not in known:
        raise NotFound(f"wanted points coloured by one of {', '.join(known)}, got {colour!r}.")
    kinds, domain = _kinds(answer, colour)
    field = colour if colour in (BY_SPLIT, BY_ANSWER, BY_CLUSTER) else "value"
    rows = [
        {"x": at, "y": up, field: kind}
        for at, up, kind in zip(x, y, kinds, strict=True)
        if kind is not None
    ]
    if domain is not None:  # what is drawn last lies on top
        rows.sort(key=lambda row: domain.index(row[field]))
    titles = axis_titles(laid)
    by = known[colour]
    title = {
        BY_SPLIT: f"Where images of {answer.reference} and {answer.target} lie among train images",
        BY_ANSWER: f"Where {answer.model} is right and where it is wrong, on both test splits",
        BY_CLUSTER: "Clusters of alike images on the map",
    }.get(colour, f"Images of both test splits, coloured by {by}")
    return charts.cloud(
        rows, kind=field, kind_title=by, domain=domain, title=title, x_title=titles[0],
        y_title=titles[1],
    )  # fmt: skip


def _kinds(answer: MapOut, colour: str) -> tuple[list[Any], list[str] | None]:
    """Kind of each point, None where it has none, and all kinds; these are None for numbers."""
    points = answer.points
    assert points is not None
    if colour == BY_SPLIT:
        return [answer.splits[split] for split in points.split], answer.splits
    if colour == BY_ANSWER:
        words = {True: "right", False: "wrong", None: None}
        return [words[right] for right in points.correct], ["right", "wrong"]
    if colour == BY_CLUSTER:
        there = sorted({c for c in points.cluster if c is not None})
        return [None if c is None else str(c) for c in points.cluster], [str(c) for c in there]
    one = next(one for one in answer.annotations if f"{_ANNOTATION}{one.name}" == colour)
    if one.categories is None:
        return list(one.values), None
    return [None if v is None else one.categories[int(v)] for v in one.values], one.categories


def _by_cluster(answer: MapOut) -> dict[str, Any]:
    rows = [
        {
            "name": f"cluster {one.cluster}",
            "estimate": one.gap.estimate,
            "low": one.gap.low,
            "high": one.gap.high,
            "classes": one.classes,
            "q_value": one.q_value,
        }
        for one in answer.clusters or []
        if one.gap.estimate is not None
    ]
    if not rows:
        raise NothingToDraw(
            f"wanted clusters of the images for {answer.model!r}, but "
            f"{answer.clusters_reason or 'none has images of both splits'}."
        )
    return charts.forest(
        rows,
        title="Gap of each cluster of images (dashed: the gap of all)",
        x_title=f"gap: {answer.reference} − {answer.target}, points (95 % interval)",
        also=answer.gap.estimate,
        tooltip=["classes", "q_value"],
    )


PART = Part(
    NAME,
    "a map of the images, clusters of alike ones, and the gap of each",
    MapOut,
    compute,
    {
        "map": lambda answer: spec(answer, PCA, BY_SPLIT),
        "map_umap": lambda answer: spec(answer, UMAP, BY_SPLIT),
        "map_correct": lambda answer: spec(answer, PCA, BY_ANSWER),
        "map_clusters": _by_cluster,
    },
    reads=("loads",),
)
