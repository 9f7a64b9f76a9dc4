"""Heads that files give, and heads between two others."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from models import heads
from models.errors import BadHeadFile, HeadsDiffer
from models.heads import LinearHead
from models.heads.given import read_head
from models.heads.linear import interpolated, is_raw

W = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.5]], np.float32)  # k = 3 rows, d = 2
B = np.array([0.5, -1.0, 2.0], np.float32)
X = np.array([[1.0, -1.0], [0.25, 3.0]], np.float32)


def tensors(**more):
    return {k: torch.tensor(v) for k, v in {"weight": W, "bias": B, **more}.items()}


def read(file, **options):
    return read_head(file, **{"backbone": "mine", "n_features": 2, **options})


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("layer", ["", "head.", "fc.", "classifier.", "head.fc."])
@pytest.mark.parametrize("turned", [False, True])
def test_weights_are_found_by_usual_names_and_shape(tmp_path, suffix, layer, turned):
    weight = W.T if turned else W
    state = {f"{layer}weight": torch.tensor(weight.copy()), f"{layer}bias": torch.tensor(B)}
    state["stem.weight"] = torch.ones(3, 2)
    file = tmp_path / f"x.{suffix}"
    if suffix == "pth":
        torch.save({"state_dict": state, "epoch": 3}, file)
    else:
        save_file(state, file)
    found = read(file)
    np.testing.assert_array_equal(heads.scores(found.head, X), X @ W.T + B)
    assert found.head.class_ids.tolist() == [0, 1, 2]
    assert is_raw(found.head)
    assert found.weight_keys == (f"{layer}weight",)
    assert found.notes == ()


def test_named_tensors_count_and_of_two_the_mean(tmp_path):
    file = tmp_path / "x.safetensors"
    save_file(tensors(w2=W + 2, b2=B * 3), file)
    one = read(file, weight=["w2"], bias=["b2"]).head
    np.testing.assert_array_equal(one.weight, (W + 2).T)
    both = read(file, weight=["weight", "w2"], bias=["bias", "b2"])
    np.testing.assert_array_equal(both.head.weight, (W + 1).T)
    np.testing.assert_array_equal(both.head.bias, 2 * B)
    assert "mean of weight and w2" in both.notes[0]
    with pytest.raises(BadHeadFile, match="a bias for each weight"):
        read(file, weight=["weight", "w2"], bias=["bias"])
    with pytest.raises(BadHeadFile, match=r"wanted the tensor 'w3'.*w2 \[3, 2\]"):
        read(file, weight=["w3"])


def test_two_heads_of_a_distilled_network_are_averaged_where_that_is_what_it_does(tmp_path):
    file = tmp_path / "x.safetensors"
    state = {"head.weight": W, "head.bias": B, "head_dist.weight": W + 2, "head_dist.bias": B}
    save_file({key: torch.tensor(value) for key, value in state.items()}, file)
    found = read(file, backbone="efficientformerv2_s0")
    np.testing.assert_array_equal(found.head.weight, (W + 1).T)
    with pytest.raises(BadHeadFile, match="name both"):
        read(file)
    with pytest.raises(BadHeadFile, match="not one linear layer"):
        read(file, backbone="deit_tiny_distilled_patch16_224")


def test_the_answer_of_a_whole_network_is_its_features_through_the_head(tmp_path):
    """efficientformerv2_s0, the model case: two heads on one vector."""
    from models.torchvision_guard import import_torchvision

    import_torchvision()
    import timm

    torch.manual_seed(0)
    network = timm.create_model("efficientformerv2_s0", pretrained=False).eval()
    torch.save(network.state_dict(), tmp_path / "s0.pth")
    with torch.no_grad():
        images = torch.randn(2, 3, 224, 224)
        features = network.forward_head(network.forward_features(images), pre_logits=True)
        expected = network(images)
    found = read(tmp_path / "s0.pth", backbone="efficientformerv2_s0", n_features=176)
    np.testing.assert_allclose(heads.scores(found.head, features.numpy()), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"weight": W[:, :1], "bias": B}, r"shape \[k, 2\] or \[2, k\].*\[3, 1\] and \[3\]"),
        ({"weight": W, "bias": B[:2]}, r"\[3, 2\] and \[2\]"),
        ({"weight": W}, "wanted the tensor 'bias'"),
        ({"stem": W, "bias": B}, r"wanted the weights of a head.*stem \[3, 2\]"),
        ({"weight": W * np.nan, "bias": B}, "finite"),
        ({"weight": W.astype(float) * 1e39, "bias": B.astype(float)}, "finite"),
        ({"weight": W.astype(np.int64), "bias": B}, "shape"),
    ],
)
def test_a_file_without_a_head_that_fits_is_refused_in_words(tmp_path, state, words):
    file = tmp_path / "x.safetensors"
    save_file({k: torch.tensor(v) for k, v in state.items()}, file)
    with pytest.raises(BadHeadFile, match=words):
        read(file)


def test_a_head_behind_a_normalisation_is_refused(tmp_path):
    file = tmp_path / "x.safetensors"
    state = {"head.fc.weight": W, "head.fc.bias": B, "head.bn.weight": B[:2]}
    save_file({key: torch.tensor(value) for key, value in state.items()}, file)
    with pytest.raises(BadHeadFile, match=r"behind head\.bn\.weight"):
        read(file)


def test_files_that_are_none_are_refused_and_no_code_runs(tmp_path):
    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "marker"), "w")

    files = {
        "a.safetensors": b"\x00" * 9, "b.pth": b"nonsense", "c.pth": pickle.dumps(Evil()),
        "d.safetensors": pickle.dumps(Evil()), "e.pth": b"",
    }  # fmt: skip
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadHeadFile, match="wanted tensors in"):
            read(tmp_path / name)
    torch.save({"weight": Evil()}, tmp_path / "f.pth")
    torch.save([1, 2], tmp_path / "g.pth")
    for name in ("f.pth", "g.pth", "missing.pth"):
        with pytest.raises(BadHeadFile):
            read(tmp_path / name)
    assert not (tmp_path / "marker").exists()


def test_a_square_weight_has_a_note_and_half_precision_is_read(tmp_path):
    file = tmp_path / "x.safetensors"
    save_file({"weight": torch.tensor(W[:2]).bfloat16(), "bias": torch.tensor(B[:2])}, file)
    found = read(file)
    np.testing.assert_array_equal(heads.scores(found.head, X), X @ W[:2].T + B[:2])
    assert "square" in found.notes[0]


def random_head(seed, *, d=6, k=4, mean=0.0, scale=1.0):
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(d, k)).astype(np.float32)
    bias = rng.normal(size=k).astype(np.float32)
    where = mean * (1 + 0.01 * rng.random(d)) if mean else np.zeros(d)
    spread = scale * (0.5 + rng.random(d)) if scale != 1 else np.ones(d)
    return LinearHead(where, spread, weight, bias, np.arange(k))


def exact(head, X):
    return (X.astype(float) - head.mean) / head.scale @ head.weight.astype(float) + head.bias


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize(
    ("a", "b"),
    [
        ({}, {}),
        ({"mean": 3.0, "scale": 2.0}, {"mean": -4.0, "scale": 0.1}),
        ({"mean": 1e4, "scale": 2.0}, {"mean": 1e4, "scale": 2.0}),
        ({"mean": 1e6, "scale": 3.0}, {}),
        ({}, {"mean": 1e6, "scale": 0.5}),
        ({"mean": 1e-6, "scale": 1e-6}, {"mean": 2e-6, "scale": 1e-6}),
    ],
)
def test_weights_between_are_scores_between(a, b, alpha):
    a, b = random_head(1, **a), random_head(2, **b)
    between = interpolated(a, b, alpha)
    trained = [h for h in (a, b) if not is_raw(h)] or [a]
    rng = np.random.default_rng(3)
    rows = trained[0].mean + trained[0].scale * rng.normal(size=(50, 6))
    X = rows.astype(np.float32)
    expected = (1 - alpha) * exact(a, X) + alpha * exact(b, X)
    # scores of 1e6 have no digits below .1 in float32, however they are put together
    size = max(1.0, np.abs(exact(a, X)).max(), np.abs(exact(b, X)).max())
    np.testing.assert_allclose(heads.scores(between, X), expected, atol=1e-5 * size)


def test_far_from_0_two_trained_heads_keep_all_digits():
    """In raw feature space the bias would be near 1e6 and the scores would lose five digits."""
    a = random_head(1, mean=1e6, scale=3.0)
    b = replace(random_head(2, scale=2.0), mean=a.mean + 0.5)
    X = (a.mean + a.scale * np.random.default_rng(0).normal(size=(50, 6))).astype(np.float32)
    expected = (exact(a, X) + exact(b, X)) / 2
    np.testing.assert_allclose(heads.scores(interpolated(a, b, 0.5), X), expected, atol=2e-5)
    np.testing.assert_allclose(
        (heads.scores(a, X) + heads.scores(b, X)) / 2,
        heads.scores(interpolated(a, b, 0.5), X),
        atol=1e-5,
    )


def test_heads_of_other_features_or_classes_have_nothing_between():
    a = random_head(0)
    with pytest.raises(HeadsDiffer, match="6 features and 4 classes beside 5 and 4"):
        interpolated(a, random_head(0, d=5), 0.5)
    with pytest.raises(HeadsDiffer, match="not the same ones"):
        interpolated(a, replace(a, class_ids=np.array([0, 1, 2, 4])), 0.5)
