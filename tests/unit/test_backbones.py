import io
import re
import time
import urllib.request

import numpy as np
import pytest
import torch
from PIL import Image

from models.backbones import backbone_of, features_of_images, open_backbone, open_lite0
from models.backbones.layers import pooled, pre_logits, refuse_unpooled
from models.backbones.weights import Weights, network_with_weights
from models.errors import BackboneError, NoWeights, UnknownLayer, UnpooledMap


@pytest.fixture(autouse=True)
def empty_caches(tmp_path, monkeypatch):
    """No test depends on what this machine has cached."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def random(model, **options):
    return open_backbone(model, random_seed=0, device="cpu", **options)


def batch(n, size_px, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, size_px, size_px, generator=generator)


def test_efficientformerv2_s0_gives_176_columns():
    backbone = random("efficientformerv2_s0.snap_dist_in1k")
    features = backbone.features(batch(2, 224))
    assert features.shape == (2, 176)
    assert features.dtype == np.float32
    assert (backbone.n_features, backbone.layer) == (176, "pre-logits")
    assert backbone.input_size_px == (224, 224)


EVA = "eva02_large_patch14_448.mim_m38m_ft_in22k_in1k"


def test_eva02_large_gives_1024_columns_of_shapes_alone():
    import timm

    with torch.device("meta"):  # shapes without numbers: no memory, no time
        network = timm.create_model(EVA).eval()
        assert pre_logits(network, EVA)(torch.zeros(2, 3, 448, 448)).shape == (2, 1024)


@pytest.mark.slow
def test_eva02_large_gives_1024_columns():
    """305 million drawn parameters, one image: 1.9 GB, and 9 to 40 seconds on two cores."""
    backbone = random(EVA)
    assert (backbone.n_features, backbone.input_size_px) == (1024, (448, 448))
    assert backbone.transform.config["crop_mode"] == "squash"


def test_the_unpooled_map_is_refused_with_both_numbers():
    import timm

    name = "efficientformerv2_s0.snap_dist_in1k"
    network = timm.create_model(name, global_pool="").eval()
    sentence = "gives 176 columns, not 8,624 (the unpooled map)"
    with pytest.raises(UnpooledMap, match=re.escape(f"{name} {sentence}")):
        backbone_of(network, Weights("none", ""), model=name)
    with pytest.raises(UnpooledMap, match=re.escape(sentence)):
        refuse_unpooled(torch.zeros(2, 176 * 49), 176, name)  # flattened
    with pytest.raises(UnpooledMap, match="got a list"):
        refuse_unpooled([torch.zeros(2, 176)], 176, name)


def test_features_are_what_the_networks_own_classifier_takes():
    network, weights = network_with_weights("test_vit", random_seed=1)
    x = batch(2, 160)
    features = backbone_of(network, weights, model="test_vit").features(x)
    with torch.inference_mode():
        logits = network(x).numpy()
        mine = network.head(torch.from_numpy(features)).numpy()
    np.testing.assert_allclose(mine, logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "layer", "n_features"),
    [("test_vit", "blocks.3", 64), ("test_efficientnet", "blocks.1", 24),
     ("test_vit", "head_drop", 64), ("swin_tiny_patch4_window7_224", "layers.1", 192)],
)  # fmt: skip
def test_any_layer_is_pooled(model, layer, n_features):
    backbone = random(model, layer=layer)
    size = backbone.input_size_px[0]
    assert backbone.layer == layer
    assert backbone.features(batch(2, size)).shape == (2, backbone.n_features) == (2, n_features)


def test_a_layer_is_the_mean_of_its_patches_without_the_class_token():
    network, weights = network_with_weights("test_vit", random_seed=0)
    x = batch(2, 160)
    kept = []
    handle = network.blocks[3].register_forward_hook(lambda _m, _i, output: kept.append(output))
    with torch.inference_mode():
        network(x)
    handle.remove()
    assert kept[0].shape == (2, 1 + 100, 64)
    backbone = backbone_of(network, weights, model="test_vit", layer="blocks.3")
    np.testing.assert_allclose(backbone.features(x), kept[0][:, 1:].mean(1), atol=1e-5)


def test_a_map_is_averaged_over_its_two_equal_sides():
    options = {"n_prefix": 0, "n_patches": None, "layer": "x"}
    assert pooled(torch.ones(2, 5, 7, 7), channels_last=True, **options).shape == (2, 5)
    assert pooled(torch.ones(2, 7, 7, 5), channels_last=False, **options).shape == (2, 5)
    cube = torch.arange(8.0).reshape(1, 2, 2, 2)
    assert pooled(cube, channels_last=False, **options).tolist() == [[1.5, 5.5]]
    assert pooled(cube, channels_last=True, **options).tolist() == [[3.0, 4.0]]


def test_tokens_without_a_class_token_are_all_averaged():
    options = {"n_prefix": 1, "channels_last": False, "layer": "x"}
    tokens = torch.tensor([[[3.0], [1.0]]])
    assert pooled(tokens, n_patches=2, **options).item() == 2
    assert pooled(tokens, n_patches=1, **options).item() == 1
    with pytest.raises(UnknownLayer, match=r"got \[1, 2, 1, 1, 1\]"):
        pooled(tokens[..., None, None], n_patches=2, **options)


@pytest.mark.parametrize(
    ("layer", "words"),
    [("blocks.33", "Near it: blocks.3"), ("nix", "its blocks: blocks.0, blocks.1"),
     ("attn_pool", "Near it"), ("blocks.0.attn.q_norm.x", "wanted a layer")],
)  # fmt: skip
def test_an_unknown_layer_is_refused_with_those_near_it(layer, words):
    with pytest.raises(UnknownLayer, match=words):
        random("test_vit", layer=layer)


def test_a_layer_that_runs_twice_or_never_is_refused():
    network, weights = network_with_weights("test_vit", random_seed=0)
    network.spare = torch.nn.Identity()
    with pytest.raises(UnknownLayer, match="runs 0 times"):
        backbone_of(network, weights, model="test_vit", layer="spare")
    network.blocks[1] = network.blocks[0]
    with pytest.raises(UnknownLayer, match="runs 2 times"):
        backbone_of(network, weights, model="test_vit", layer="blocks.0")


def test_random_weights_follow_the_seed_and_say_that_they_mean_nothing():
    state = torch.get_rng_state()
    first, again, other = (
        network_with_weights("test_efficientnet", random_seed=seed)[1] for seed in (0, 0, 1)
    )
    assert first == again
    assert first.digest != other.digest
    assert first.are_random
    assert "mean nothing" in first.source
    assert torch.equal(torch.get_rng_state(), state)


def test_lite0_has_its_weights_from_the_package_and_the_demo_the_same_features():
    backbone = open_backbone("tf_efficientnet_lite0", device="cpu")
    demo = open_lite0()
    assert backbone.weights == demo.weights
    assert "package" in backbone.weights.source
    assert not backbone.weights.are_random
    rng = np.random.default_rng(0)
    grey = [rng.integers(0, 256, (256, 256), dtype=np.uint8) for _ in range(3)]
    crops = [image[16:240, 16:240] for image in grey]  # what the model's own transform cuts out
    theirs = features_of_images(demo, crops, size_px=224)
    mine = backbone.features(
        torch.stack([backbone.transform(Image.fromarray(image)) for image in grey])
    )
    np.testing.assert_allclose(mine, theirs, atol=1e-5)
    assert np.abs(mine).max() > 0.1


def test_a_local_file_is_taken_whatever_its_format(tmp_path):
    from safetensors.torch import save_file

    network, drawn = network_with_weights("test_efficientnet", random_seed=5)
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    for name in ("w.safetensors", "w.pth"):
        _, found = network_with_weights("test_efficientnet", weights=tmp_path / name)
        assert found.digest == drawn.digest
        assert found.source == name


def test_weights_tuned_to_other_classes_give_the_same_features(tmp_path):
    import timm

    tuned = timm.create_model("test_vit", num_classes=7).eval()
    torch.save(tuned.state_dict(), tmp_path / "tuned.pth")
    x = batch(2, 160)
    with torch.inference_mode():
        features = tuned.forward_head(tuned.forward_features(x), pre_logits=True).numpy()
    found = open_backbone("test_vit", weights=tmp_path / "tuned.pth", device="cpu").features(x)
    np.testing.assert_allclose(found, features, atol=1e-5)


class Evil:
    def __reduce__(self):
        return (open, ("/nonexistent/evil", "w"))


@pytest.mark.parametrize("content", [b"", b"text", "other model", "a pickle that runs code"])
def test_a_file_that_does_not_fit_is_refused(content, tmp_path):
    file = tmp_path / "w.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content == "other model":
        network, _ = network_with_weights("test_efficientnet", random_seed=0)
        torch.save(network.state_dict(), file)
    else:
        torch.save({"x": Evil()}, file)
    with pytest.raises(NoWeights, match=r"wanted weights of test_vit in .*Name a checkpoint"):
        open_backbone("test_vit", weights=file)
    with pytest.raises(NoWeights, match="nothing at"):
        open_backbone("test_vit", weights=tmp_path / "none.pth")


def test_what_timm_has_cached_is_taken_first(tmp_path, monkeypatch):
    from huggingface_hub import constants
    from safetensors.torch import save_file

    network, drawn = network_with_weights("tf_efficientnet_lite0", random_seed=9)
    repository = tmp_path / "hub" / "models--timm--tf_efficientnet_lite0.in1k"
    (repository / "snapshots" / "abc").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    save_file(dict(network.state_dict()), repository / "snapshots" / "abc" / "model.safetensors")
    assert str(tmp_path / "hub") == constants.HF_HUB_CACHE
    _, found = network_with_weights("tf_efficientnet_lite0")
    assert found.digest == drawn.digest
    assert found.source == "hub timm/tf_efficientnet_lite0.in1k"


def test_missing_weights_are_refused_at_once_with_what_to_fetch(monkeypatch):
    """The hub's own client would try for three quarters of a minute."""
    import huggingface_hub

    def offline(_url, **_options):
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", offline)
    began = time.monotonic()
    with pytest.raises(NoWeights) as refused:
        network_with_weights("efficientformerv2_s0.snap_dist_in1k")
    assert time.monotonic() - began < 5
    words = str(refused.value)
    assert "no network" in words
    assert "timm/efficientformerv2_s0.snap_dist_in1k/resolve/main/model.safetensors" in words
    assert "--weights FILE" in words
    assert "models--timm--efficientformerv2_s0.snap_dist_in1k" in words
    assert "--weights random" in words


def test_a_hub_without_the_file_and_a_broken_connection_are_refused(monkeypatch):
    import httpx2
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    def fail(error):
        def answer(_url, **_options):
            raise error

        monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", answer)

    fail(EntryNotFoundError("404"))
    with pytest.raises(NoWeights, match=r"has none of model\.safetensors, pytorch_model"):
        network_with_weights("test_vit")
    fail(httpx2.ConnectError("refused"))
    with pytest.raises(NoWeights, match="refused"):
        network_with_weights("test_vit")


def test_a_download_is_used(monkeypatch, tmp_path):
    import huggingface_hub

    network, drawn = network_with_weights("test_vit", random_seed=2)
    torch.save(network.state_dict(), tmp_path / "pytorch_model.bin")
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda _url, **_options: None)
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda *_a, **_k: tmp_path / "pytorch_model.bin"
    )
    assert network_with_weights("test_vit")[1].digest == drawn.digest


def test_weights_at_an_address(monkeypatch, tmp_path):
    """Some of timm's weights lie at an address of their own, not on the hub."""
    import timm

    name = "legacy_seresnet18.in1k"
    assert not timm.get_pretrained_cfg(name).hf_hub_id

    def offline(_url, **_options):
        raise OSError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    with pytest.raises(NoWeights, match=r"no network.*put it at .*checkpoints"):
        network_with_weights(name)

    def fetch(_url, file):
        network = timm.create_model(name, pretrained=False)
        torch.save(network.state_dict(), file)

    monkeypatch.setattr(urllib.request, "urlopen", lambda _url, **_options: io.BytesIO())
    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    fetched = network_with_weights(name)[1]
    monkeypatch.setattr(urllib.request, "urlopen", offline)
    assert network_with_weights(name)[1] == fetched
    assert fetched.source == timm.get_pretrained_cfg(name).url


def test_names_that_timm_does_not_know_are_refused():
    with pytest.raises(BackboneError, match=r"got 'resnet18\.nix'") as refused:
        open_backbone("resnet18.nix")
    assert "resnet18.a1_in1k" in str(refused.value)
    with pytest.raises(BackboneError, match="For example test_vit"):
        open_backbone("test_vi")
    with pytest.raises(BackboneError, match=r"got '\.\./x'"):
        open_backbone("../x")


def test_a_model_without_trained_weights_says_so():
    import timm

    name = next(n for n in timm.list_models("resnet*") if not timm.list_pretrained(f"{n}.*"))
    with pytest.raises(NoWeights, match="timm knows of none"):
        open_backbone(name)


def test_devices():
    assert random("test_vit", autocast=True).features(batch(1, 160)).dtype == np.float32
    with pytest.raises(BackboneError, match="Leave --device at auto"):
        open_backbone("test_vit", random_seed=0, device="nix")
    if not torch.cuda.is_available():
        assert open_backbone("test_vit", random_seed=0).device.type == "cpu"
        with pytest.raises(BackboneError, match="got 'cuda'"):
            open_backbone("test_vit", random_seed=0, device="cuda")


def test_too_little_memory_is_refused_in_words():
    network, weights = network_with_weights("test_vit", random_seed=0)
    backbone = backbone_of(network, weights, model="test_vit")

    def full(_x):
        raise torch.OutOfMemoryError("CUDA out of memory")

    network.forward_features = full
    with pytest.raises(BackboneError, match="smaller --batch-size"):
        backbone.features(batch(1, 160))


def test_a_transform_takes_any_mode_and_goes_to_other_processes():
    import pickle

    transform = random("test_vit").transform
    again = pickle.loads(pickle.dumps(transform))
    for mode in ("L", "CMYK", "P", "RGBA", "I;16"):
        image = Image.new(mode, (300, 200))
        x = transform(image)
        assert x.shape == (3, 160, 160)
        assert torch.equal(x, again(image))
