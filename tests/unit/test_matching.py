"""Which known path an asked path means: the rules by hand, by another implementation, by chance."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.matching import match

VAL = "val/n01440764/ILSVRC2012_val_00000293.JPEG"
TRAIN = "train/n01440764/n01440764_10026.JPEG"
V2 = "v2/0/25949dd0704552263197b05a8359771a4192ff45.jpeg"
IMAGENET = [("val", VAL), ("train", TRAIN), ("v2", V2)]


def matched(asked, known):
    """Known path of each asked (split, path), or the status where there is none."""
    found = match(
        pa.table({"split": pa.array([s for s, _ in asked], pa.string()),
                  "path": pa.array([p for _, p in asked], pa.string())}),
        pa.table({"split": pa.array([s for s, _ in known], pa.string()),
                  "path": pa.array([p for _, p in known], pa.string())}),
    ).to_pylist()  # fmt: skip
    return [r["status"] if r["known_row"] is None else known[r["known_row"]][1] for r in found]


def one(path, known, split=None):
    return matched([(split, path)], known)[0]


@pytest.mark.parametrize(
    ("asked", "means"),
    [
        (VAL, VAL),
        ("ILSVRC2012_val_00000293.JPEG", VAL),
        ("n01440764/ILSVRC2012_val_00000293.JPEG", VAL),
        ("imagenet/" + VAL, VAL),
        ("/data/" + VAL, VAL),
        ("./" + VAL, VAL),
        ("ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_00000293.JPEG", VAL),
        ("C:\\imagenet\\val\\n01440764\\ILSVRC2012_val_00000293.JPEG", VAL),
        ("n01440764/n01440764_10026.JPEG", TRAIN),
        ("n01440764_10026.JPEG", TRAIN),
        ("imagenetv2-matched-frequency-format-val/0/" + V2.split("/")[-1], V2),
        ("0/" + V2.split("/")[-1], V2),
        ("000/" + V2.split("/")[-1], V2),
        ("n01440764/" + V2.split("/")[-1], V2),
        ("1/" + V2.split("/")[-1], "unmatched"),
        ("n01443537/ILSVRC2012_val_00000293.JPEG", "unmatched"),
        ("ILSVRC2012_val_00000294.JPEG", "unmatched"),
        ("3.JPEG", "unmatched"),
        ("x_ILSVRC2012_val_00000293.JPEG", "unmatched"),
        ("", "unmatched"),
        (None, "unmatched"),
    ],
)
def test_imagenets_names_are_understood(asked, means):
    assert one(asked, IMAGENET) == means


def test_several_known_paths_with_the_longest_suffix_are_ambiguous():
    known = [("val", "val/a/x_1.png"), ("val", "val/b/x_1.png"), ("v2", "v2/a/x_1.png")]
    assert one("x_1.png", known) == "ambiguous"
    assert one("x_1.png", known, "v2") == "v2/a/x_1.png"
    assert one("a/x_1.png", known) == "ambiguous"
    assert one("a/x_1.png", known, "val") == "val/a/x_1.png"
    assert one("val/a/x_1.png", known) == "val/a/x_1.png"
    assert one("val/a/x_1.png", known, "train") == "unmatched"


def test_an_equal_path_wins_over_a_longer_one_that_ends_like_it():
    known = [("val", "a/x_1.png"), ("val", "old/a/x_1.png")]
    assert one("a/x_1.png", known) == "a/x_1.png"


def test_one_path_in_two_splits_is_ambiguous_unless_the_split_is_said():
    known = [("val", "img/a.png"), ("v2", "img/a.png")]
    assert one("img/a.png", known) == "ambiguous"
    assert one("img/a.png", known, "v2") == "img/a.png"


@pytest.mark.parametrize(
    "asked", ["test/dog/0.png", "val/3/0.png", "val/dog/0000007.jpeg", "v2/row-7"]
)
def test_a_short_number_is_no_name_where_the_folders_differ(asked):
    name = asked.split("/")[-1]
    known = [("val", f"val/cat/{name}")]
    assert one(asked, known) == "unmatched"
    assert one(name, known) == f"val/cat/{name}"
    assert one(f"x/cat/{name}", known) == f"val/cat/{name}"


def test_a_folder_that_is_there_but_lacks_the_file_is_not_another_folders_file():
    """`dog` is there beside `cat`: pic_001 of dogs is missing, it is not the cats'."""
    known = [("val", "val/cat/pic_001.jpg"), ("val", "val/dog/pic_002.jpg")]
    assert one("val/dog/pic_001.jpg", known) == "unmatched"
    assert one("other/dog/pic_001.jpg", known) == "unmatched"
    # the asked side has a folder `cat` beside `dog`
    asked = [(None, "x/dog/pic_001.jpg"), (None, "x/cat/pic_009.jpg")]
    assert matched(asked, known[:1]) == ["unmatched", "unmatched"]
    # a missing test set is not the other one with the same class folders and file names
    known = [("val", "val/0/a_b.png"), ("v2", "v2/0/c_d.png")]
    assert one("v2/0/a_b.png", known) == "unmatched"


def test_class_folders_of_another_set_are_no_reason_against_a_flat_one():
    """Kaggle's ImageNet: train in class folders, val flat beside it."""
    disk = [("", "CLS-LOC/train/n01440764/n01440764_1.JPEG"), ("", "CLS-LOC/val/V_1.JPEG")]
    assert one("val/n01440764/V_1.JPEG", disk) == "CLS-LOC/val/V_1.JPEG"


def test_a_known_path_goes_to_the_asked_path_that_shares_most_with_it():
    known = [("val", "val/a/x_1.png")]
    asked = [(None, "v2/b/x_1.png"), (None, "val/a/x_1.png"), (None, "q/a/x_1.png")]
    assert matched(asked, known) == ["unmatched", "val/a/x_1.png", "unmatched"]
    assert matched([asked[0], (None, "t/c/x_1.png")], known) == ["ambiguous"] * 2
    # the same path twice is one path
    assert matched([asked[1], asked[1]], known) == ["val/a/x_1.png"] * 2


def test_accents_match_however_the_file_system_writes_them():
    assert one("caf\u0065\u0301/x_1.png", [("val", "val/caf\u00e9/x_1.png")]) != "unmatched"


def test_nothing_asked_and_nothing_known():
    assert matched([], IMAGENET) == []
    assert matched([(None, VAL)], []) == ["unmatched"]


# another implementation of the rules, for small tables
def parts_of(path):
    return [p for p in path.replace("\\", "/").split("/") if p not in ("", ".")]


def shared(a, b):
    n = 0
    while n < min(len(a), len(b)) and a[-1 - n] == b[-1 - n]:
        n += 1
    return 10**6 if a == b and n else n


def folders(paths):
    return {tuple(p[:n]) for p in paths for n in range(1, len(p))}


def by_accident(a, k, n, asked_folders, known_folders):
    if n >= min(len(a), len(k)):
        return False
    before_a, before_k, name = a[-1 - n], k[-1 - n], a[-1]
    numbers = before_a.isdigit() and before_k.isdigit()
    wnids = before_a[0] == before_k[0] == "n"
    return (
        (n == 1 and name.split(".")[0].removeprefix("row-").isdigit())
        or (n == 1 and (wnids or (numbers and int(before_a) != int(before_k))))
        or (*k[: -1 - n], before_a) in known_folders
        or (*a[: -1 - n], before_k) in asked_folders
    )


def by_hand(asked, known):
    a_all, k_all = [parts_of(p) for _, p in asked], [parts_of(p) for _, p in known]
    claims, status = {}, ["unmatched"] * len(asked)
    for i, (split, _) in enumerate(asked):
        mine = [j for j, (s, _) in enumerate(known) if split in (None, s)]
        scopes = [m for m, (s, _) in enumerate(asked) if s == split]
        most = max((shared(a_all[i], k_all[j]) for j in mine), default=0)
        if most == 0:
            continue
        best = [j for j in mine if shared(a_all[i], k_all[j]) == most]
        sides = folders([a_all[m] for m in scopes]), folders([k_all[j] for j in mine])
        if by_accident(a_all[i], k_all[best[0]], most, *sides):
            continue
        status[i] = "ambiguous"
        if len(best) == 1:
            claims.setdefault(best[0], []).append((most, i))
    for j, mine in claims.items():
        most = max(n for n, _ in mine)
        first = {tuple(a_all[i]) for n, i in mine if n == most}
        for n, i in mine:
            one_of_several = "ambiguous" if len(first) > 1 else known[j][1]
            status[i] = one_of_several if n == most else "unmatched"
    return status


component = st.sampled_from(["a", "b", "0", "1", "01", "n01440764", "n01443537"])
file_name = st.sampled_from(["x.png", "y_1.png", "0.png", "row-1"])
path = st.builds(lambda f, n: "/".join([*f, n]), st.lists(component, max_size=3), file_name)
split = st.sampled_from(["val", "v2"])
tables = st.tuples(
    st.lists(st.tuples(st.one_of(st.none(), split), path), max_size=6),
    st.lists(st.tuples(split, path), max_size=6),
)


@settings(max_examples=100, deadline=None)
@given(tables)
def test_the_query_does_what_the_rules_say(tables):
    asked, known = tables
    assert matched(asked, known) == by_hand(asked, known)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["n01440764", "n01443537", "dog"]), st.integers(0, 30)),
        min_size=1, max_size=20, unique=True,
    ),
    st.randoms(use_true_random=False),
    st.sampled_from(["", "/data/", "imagenet/v1/", "C:\\sets\\"]),
)  # fmt: skip
def test_any_order_and_any_prefix_find_the_same(images, random, prefix):
    known = [("val", f"val/{c}/image_{i}_of_{c}.JPEG") for c, i in images]
    order = random.sample(range(len(known)), len(known))
    forms = [
        lambda p: prefix + p,
        lambda p: prefix + p.replace("/", "\\"),
        lambda p: prefix + "other-val/" + p.split("/", 1)[1],
        lambda p: p.split("/")[-1],
    ]
    for form in forms:
        asked = [(None, form(known[i][1])) for i in order]
        assert matched(asked, known) == [known[i][1] for i in order]
