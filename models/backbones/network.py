"""A frozen timm network that turns images into features."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from models.backbones.layers import PRE_LOGITS, Forward, layer_features, pre_logits
from models.backbones.lite0 import MODEL
from models.backbones.weights import Weights, lite0_with_weights, network_with_weights
from models.errors import BackboneError
from models.torchvision_guard import import_torchvision


@dataclass
class Transform:
    """The model's own way from an image to its input; it can be sent to another process.

    Attributes
    ----------
    config : timm's data configuration: input_size, interpolation, mean, std, crop_pct, crop_mode
    """

    config: Mapping[str, Any]
    _steps: Callable[[Image.Image], Tensor] | None = field(default=None, repr=False)

    def __call__(self, image: Image.Image) -> Tensor:
        """Return the image as float32 [3, h, w]; other modes than RGB are converted."""
        if self._steps is None:
            self._steps = self._made()
        return self._steps(image.convert("RGB"))

    def __getstate__(self) -> dict[str, Any]:
        """Leave the steps to the process that needs them: they import torchvision."""
        return {"config": self.config, "_steps": None}

    def _made(self) -> Callable[[Image.Image], Tensor]:
        import_torchvision()
        from timm.data.transforms_factory import create_transform

        made: Callable[[Image.Image], Tensor] = create_transform(**self.config)
        return made


@dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen network with one of its layers.

    Attributes
    ----------
    model : timm's name, with the tag of the weights
    layer : name of the layer, or `pre-logits`
    n_features : numbers an image
    transform : from an image to the input
    weights : which weights, and their digest
    device : where it computes
    autocast : whether in bfloat16 where torch holds that to be safe; features are float32 anyway
    """

    model: str
    layer: str
    n_features: int
    transform: Transform
    weights: Weights
    device: torch.device
    autocast: bool
    _forward: Forward = field(repr=False)

    @property
    def input_size_px(self) -> tuple[int, int]:
        """Height and width of the input."""
        _, height, width = self.transform.config["input_size"]
        return height, width

    def features(self, batch: Float[Tensor, "n 3 h w"]) -> Float[np.ndarray, "n d"]:
        """Features of a batch of transformed images, float32 [n, d].

        Raises
        ------
        BackboneError
            The device has too little memory for the batch.
        """
        return _computed(self._forward, batch, self.device, autocast=self.autocast)


def open_backbone(
    model: str,
    *,
    weights: Path | None = None,
    random_seed: int | None = None,
    layer: str | None = None,
    device: str = "auto",
    autocast: bool = False,
    may_fetch: bool = True,
) -> Backbone:
    """Open a timm model by name, ready to turn images into features.

    Parameters
    ----------
    model, weights, random_seed, may_fetch
        As `models.backbones.weights.network_with_weights` takes them.
    layer
        Name of any layer, pooled; by default the pre-logits layer after the model's own pooling.
    device
        `cpu`, `cuda`, `cuda:1`, …; `auto` is `cuda` where there is one.

    Raises
    ------
    BackboneError, NoWeights, UnknownLayer, UnpooledMap
    """
    place = _device(device)
    network, found = network_with_weights(
        model, weights=weights, random_seed=random_seed, may_fetch=may_fetch
    )
    return backbone_of(network, found, model=model, layer=layer, device=place, autocast=autocast)


def open_lite0() -> Backbone:
    """Open `tf_efficientnet_lite0` on the CPU with the weights of its package, whatever is cached.

    Raises
    ------
    BackboneError
        The package is not installed, or its weights do not fit.
    """
    network, weights = lite0_with_weights()
    return backbone_of(network, weights, model=MODEL)


def backbone_of(
    network: torch.nn.Module,
    weights: Weights,
    *,
    model: str,
    layer: str | None = None,
    device: torch.device | None = None,
    autocast: bool = False,
) -> Backbone:
    """Return a network in evaluation mode as a backbone; one image tells the number of features.

    Raises
    ------
    UnknownLayer, UnpooledMap
    """
    import_torchvision()
    from timm.data.config import resolve_model_data_config

    device = device or torch.device("cpu")
    timm_model: Any = network
    config = dict(resolve_model_data_config(timm_model))  # type: ignore[no-untyped-call]
    tag = timm_model.pretrained_cfg.get("tag")
    # nearly twice as fast for convolutions, on the CPU too
    timm_model.to(device, memory_format=torch.channels_last)
    forward = layer_features(network, model, layer) if layer else pre_logits(network, model)
    probe = _computed(forward, torch.zeros(1, *config["input_size"]), device, autocast=autocast)
    return Backbone(
        model=f"{model}.{tag}" if tag and "." not in model else model,
        layer=layer or PRE_LOGITS,
        n_features=probe.shape[1],
        transform=Transform(config),
        weights=weights,
        device=device,
        autocast=autocast,
        _forward=forward,
    )


def features_of_images(
    backbone: Backbone,
    images: Sequence[UInt8[np.ndarray, "h w"]],
    *,
    size_px: int,
    batch: int = 64,
    progress: Callable[[int], None] = lambda _n: None,
) -> Float[np.ndarray, "n d"]:
    """Features of grey images at another size than the model's own, float32 [n, d].

    Parameters
    ----------
    images
        Grey values 0 … 255, resized bicubically to `size_px` × `size_px`, repeated to RGB, and
        normalised with the model's own mean and standard deviation.
    progress
        Called with the number of images done after each batch.
    """
    config = backbone.transform.config
    mean = torch.tensor(config["mean"]).reshape(1, 3, 1, 1)
    sd = torch.tensor(config["std"]).reshape(1, 3, 1, 1)
    parts = []
    for start in range(0, len(images), batch):
        pixels = np.stack(
            [
                np.asarray(
                    Image.fromarray(image).resize((size_px, size_px), Image.Resampling.BICUBIC)
                )
                for image in images[start : start + batch]
            ]
        )
        x = torch.from_numpy(pixels).float().div(255)[:, None].expand(-1, 3, -1, -1)
        parts.append(backbone.features((x - mean) / sd))
        progress(start + len(pixels))
    return np.concatenate(parts)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise BackboneError(
            f"wanted a device that torch can use here, got {name!r}: {reason}. "
            "Leave --device at auto, or name cpu."
        ) from error
    return device


def _computed(
    forward: Forward, batch: Tensor, device: torch.device, *, autocast: bool
) -> Float[np.ndarray, "n d"]:
    # without these a GPU picks its algorithms by their speed, and the numbers do not repeat
    exact = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    try:
        with (
            exact,
            torch.inference_mode(),
            torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast),
        ):
            x = batch.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)
            return forward(x).float().cpu().numpy()
    except torch.OutOfMemoryError as error:
        raise BackboneError(
            f"wanted memory on {device} for {len(batch)} images at once, got none. "
            "Take a smaller --batch-size, or --device cpu."
        ) from error
