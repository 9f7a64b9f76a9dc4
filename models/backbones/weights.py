"""Where a network's weights are: a local file, timm's cache, a package, or the hub."""

import hashlib
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch

from models.backbones import lite0
from models.errors import BackboneError, NoWeights
from models.torchvision_guard import import_torchvision

_ANSWER_S = 5  # a hub that does not answer within this time is taken to be out of reach
_NAMES = ("model.safetensors", "pytorch_model.bin")  # timm's own order
_RANDOM = "random"


@dataclass(frozen=True)
class Weights:
    """Which weights a network has.

    Attributes
    ----------
    source : where they came from, in words
    digest : SHA-256 of all tensors by name, the same whatever file they came in
    file : the checkpoint that was named, None elsewhere
    seed : of random ones, None elsewhere
    """

    source: str
    digest: str
    file: Path | None = None
    seed: int | None = None

    @property
    def are_random(self) -> bool:
        """Whether nothing was learnt, so that features mean nothing."""
        return self.source.startswith(_RANDOM)


def network_with_weights(
    model: str,
    *,
    weights: Path | None = None,
    random_seed: int | None = None,
    may_fetch: bool = True,
) -> tuple[torch.nn.Module, Weights]:
    """Return a timm network in evaluation mode, and what its weights are.

    Parameters
    ----------
    model
        A name that timm registers, with or without the tag of its weights.
    weights
        A checkpoint of this model; by default what timm has cached, else what a package ships
        (`tf_efficientnet_lite0`), else what the hub has.
    random_seed
        Draw the weights instead, for trying things out: their features mean nothing.
    may_fetch
        Whether to download what is not here.

    Raises
    ------
    BackboneError
        timm knows no such model.
    NoWeights
        The weights are nowhere; the message says what to fetch and where to put it. Or the file
        does not fit the model.
    """
    import_torchvision()
    import timm

    config = _config(model)
    if random_seed is None and weights is None and _is_packaged(model) and not _cached(config):
        return lite0_with_weights()
    if random_seed is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(random_seed)
            network = timm.create_model(model, pretrained=False)
        source = f"{_RANDOM}, seed {random_seed}: these features mean nothing"
    else:
        file = weights or _cached(config) or _fetched(model, config, may_fetch=may_fetch)
        network, source = _create(model, file, config), file.name if weights else _place(config)
    return network.eval(), Weights(
        source, _digest(network), weights.resolve() if weights else None, random_seed
    )


def lite0_with_weights() -> tuple[torch.nn.Module, Weights]:
    """Return `tf_efficientnet_lite0` with the weights of its package, and what they are.

    Raises
    ------
    BackboneError
    """
    network = lite0.efficientnet_lite0()
    return network, Weights(f"package {lite0.PACKAGE}", _digest(network))


def _config(model: str) -> Any:
    import timm
    from timm.models import PretrainedCfg

    try:
        if not timm.is_model(model):
            near = timm.list_models(f"*{model.split('.')[0].strip('*')}*", pretrained=True)[:5]
            hint = f"For example {', '.join(near)}." if near else "timm.list_models() has them all."
            raise BackboneError(f"wanted the name of a timm model, got {model!r}. {hint}")
        config = timm.get_pretrained_cfg(model)
    except RuntimeError as error:  # a tag that this architecture does not have
        architecture = model.split(".")[0]
        tags = timm.list_pretrained(f"{architecture}.*")
        raise BackboneError(
            f"wanted one of {', '.join(tags) or architecture}, got {model!r}."
        ) from error
    return config or PretrainedCfg(architecture=model)


def _is_packaged(model: str) -> bool:
    return model.split(".")[0] == lite0.MODEL


def _create(model: str, file: Path, config: Any) -> torch.nn.Module:
    import timm
    from safetensors import SafetensorError

    if not file.is_file():
        raise NoWeights(f"wanted a weights file, got nothing at {file}. Check the path.")
    # original JAX files are read by the model itself
    is_jax = file.suffix in (".npz", ".npy")
    overlay: dict[str, Any] = {"file": str(file), "custom_load": is_jax}
    options: dict[str, Any] = {}
    try:
        n_classes = None if is_jax else _n_classes(file, config)
        if n_classes is not None:  # fine-tuned to other classes: the features are the same layer's
            overlay["num_classes"] = options["num_classes"] = n_classes
        network: torch.nn.Module = timm.create_model(
            model, pretrained=True, pretrained_cfg_overlay=overlay, **options
        )
    except (
        RuntimeError, LookupError, TypeError, ValueError, AttributeError, AssertionError,
        OSError, EOFError, pickle.UnpicklingError, SafetensorError,
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:300]
        raise NoWeights(
            f"wanted weights of {model} in {file}, got: {reason or type(error).__name__}. "
            "Name a checkpoint of this very model (.safetensors, .pth, .bin)."
        ) from error
    return network


def _n_classes(file: Path, config: Any) -> int | None:
    """Return the number of classes of a checkpoint's classifier, None where that cannot be told."""
    from timm.models import load_state_dict

    names = config.classifier
    first = names[0] if isinstance(names, tuple) else names
    bias = load_state_dict(str(file)).get(f"{first}.bias")
    offset = config.label_offset or 0  # an extra background class, which timm cuts off itself
    return None if bias is None or offset else len(bias)


def _place(config: Any) -> str:
    return f"hub {config.hf_hub_id}" if config.hf_hub_id else str(config.url)


def _names(config: Any) -> tuple[str, ...]:
    return (config.hf_hub_filename,) if config.hf_hub_filename else _NAMES


def _cached(config: Any) -> Path | None:
    """Return the file that timm would take without the network, or None."""
    from huggingface_hub import try_to_load_from_cache

    if config.hf_hub_id:
        repository, _, revision = config.hf_hub_id.partition("@")
        for name in _names(config):
            found = try_to_load_from_cache(repository, name, revision=revision or None)
            if isinstance(found, str):
                return Path(found)
    elif config.url and (file := _checkpoint(config.url)).is_file():
        return file
    return None


def _checkpoint(url: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name


def _fetched(model: str, config: Any, *, may_fetch: bool) -> Path:
    """Fetch the weights, or say within seconds that it is impossible."""
    from huggingface_hub import constants, hf_hub_url

    if config.hf_hub_id:
        repository, _, revision = config.hf_hub_id.partition("@")
        wanted = hf_hub_url(repository, _names(config)[0], revision=revision or None)
        keep = f"{constants.HF_HUB_CACHE}{os.sep}models--{repository.replace('/', '--')}"
        advice = f"copy the folder {keep} from a machine that has it"
    elif config.url:
        wanted = config.url
        advice = f"put it at {_checkpoint(config.url)}"
    else:
        raise NoWeights(
            f"wanted trained weights of {model}, but timm knows of none. Name a file: --weights "
            "FILE, or a model that has some."
        )
    reason = "not tried here"
    try:
        if not may_fetch:
            raise OSError(reason)
        return _from_hub(config) if config.hf_hub_id else _from_url(config.url)
    except OSError as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
    raise NoWeights(
        f"wanted the weights of {model}, but they are not cached and cannot be downloaded "
        f"({reason}). Fetch {wanted} where there is a network and name the file here: --weights "
        f"FILE; or {advice}. To try things out without them: --weights random."
    )


def _from_hub(config: Any) -> Path:
    """Ask first with one short request: the download itself would retry for a minute."""
    import httpx2
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    repository, _, revision = config.hf_hub_id.partition("@")
    try:
        for name in _names(config):
            try:
                get_hf_file_metadata(
                    hf_hub_url(repository, name, revision=revision or None), timeout=_ANSWER_S
                )
            except EntryNotFoundError:
                continue
            return Path(hf_hub_download(repository, name, revision=revision or None))
    except httpx2.HTTPError as error:
        raise OSError(str(error)) from error
    raise OSError(f"{repository} has none of {', '.join(_names(config))}")


def _from_url(url: str) -> Path:
    from urllib.request import urlopen

    file = _checkpoint(url)
    with urlopen(url, timeout=_ANSWER_S):
        pass  # as above: this one request has a time limit
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.hub.download_url_to_file(url, str(file))
    return file


def _digest(network: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
