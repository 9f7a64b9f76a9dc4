"""Any layer of a network as one vector an image."""

import difflib
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from models.errors import UnknownLayer, UnpooledMap

PRE_LOGITS = "pre-logits"
Forward = Callable[[Tensor], Tensor]


def pre_logits(network: torch.nn.Module, model: str) -> Forward:
    """Return the function from a batch to what the network's own head is a linear map of.

    The network's own pooling is applied; what is still a map after that is refused when called.
    """
    timm_model: Any = network  # timm types its models as bare modules
    width = getattr(timm_model, "head_hidden_size", None) or timm_model.num_features

    def forward(batch: Tensor) -> Tensor:
        output = timm_model.forward_head(timm_model.forward_features(batch), pre_logits=True)
        refuse_unpooled(output, width, model)
        return output  # type: ignore[no-any-return]

    return forward


def refuse_unpooled(output: Any, width: int, model: str) -> None:
    """Refuse what is not one vector of `width` features an image.

    Raises
    ------
    UnpooledMap
        For efficientformerv2_s0: 176 columns, not 8,624 (the unpooled map).
    """
    if isinstance(output, Tensor) and output.ndim == 2 and output.shape[1] == width:
        return
    if not isinstance(output, Tensor):
        raise UnpooledMap(
            f"wanted {width:,} features an image from {model}, got a {type(output).__name__}. "
            "Name a layer: --layer."
        )
    shape = tuple(output.shape[1:])
    raise UnpooledMap(
        f"{model} gives {width:,} columns, not {output[0].numel():,} (the unpooled map): wanted "
        f"one vector of {width:,} features an image, got {list(shape)}. Open the model with its "
        "own pooling, or name a layer, which is pooled: --layer."
    )


def layer_features(network: torch.nn.Module, model: str, layer: str) -> Forward:
    """Return the function from a batch to a named layer's output, one vector an image.

    Maps and tokens are averaged over their places; see `pooled`.

    Raises
    ------
    UnknownLayer
        No such layer; and, when called: one that the network does not run, runs several times, or
        that gives no tensor.
    """
    modules = dict(network.named_modules())
    if not layer or layer not in modules:
        near = difflib.get_close_matches(layer, [n for n in modules if n], n=5, cutoff=0.3)
        tops = [name for name in modules if name.count(".") == 1 and name.split(".")[1].isdigit()]
        raise UnknownLayer(
            f"wanted a layer of {model}, got {layer!r}. Near it: "
            f"{', '.join(near) or 'none'}; its blocks: {', '.join(tops[:40]) or 'none'}."
        )
    n_prefix = getattr(network, "num_prefix_tokens", 0) or 0
    n_patches = getattr(getattr(network, "patch_embed", None), "num_patches", None)
    channels_last = getattr(network, "output_fmt", None) == "NHWC"
    outputs: list[Any] = []

    def keep(_module: torch.nn.Module, _inputs: Any, output: Any) -> None:
        outputs.append(output)

    modules[layer].register_forward_hook(keep)

    def forward(batch: Tensor) -> Tensor:
        outputs.clear()
        network(batch)
        if len(outputs) != 1 or not isinstance(outputs[0], Tensor):
            came = (
                f"one that runs {len(outputs)} times"
                if len(outputs) != 1
                else f"a {type(outputs[0]).__name__}"
            )
            raise UnknownLayer(
                f"wanted a layer of {model} that gives one tensor, got {came}: {layer!r}. "
                "Name the block that holds it."
            )
        output = outputs.pop()
        return pooled(
            output, n_prefix=n_prefix, n_patches=n_patches, channels_last=channels_last, layer=layer
        )

    return forward


def pooled(
    output: Float[Tensor, "n ..."],
    *,
    n_prefix: int,
    n_patches: int | None,
    channels_last: bool,
    layer: str,
) -> Float[Tensor, "n d"]:
    """Mean over the places of a map or of tokens.

    Parameters
    ----------
    output
        Features [n, d] as they are; tokens [n, t, d]; a map [n, d, h, w] or [n, h, w, d].
    n_prefix, n_patches
        The network's class and register tokens, which stand in front and are left out of the mean
        where they are there: where t is `n_prefix` + `n_patches`.
    channels_last
        Which of the two maps it is where its shape cannot tell: a map is square, so that the two
        equal sides tell in all other cases.

    Raises
    ------
    UnknownLayer
        Another number of dimensions.

    Examples
    --------
    >>> tokens = torch.tensor([[[9.0], [1.0], [3.0]]])
    >>> options = {"channels_last": False, "layer": "blocks.0"}
    >>> pooled(tokens, n_prefix=1, n_patches=2, **options)
    tensor([[2.]])
    >>> pooled(torch.ones(1, 7, 7, 3), n_prefix=0, n_patches=None, **options).shape
    torch.Size([1, 3])
    """
    if output.ndim == 2:
        return output
    if output.ndim == 3:
        has_prefix = n_prefix > 0 and output.shape[1] == n_prefix + (n_patches or 0)
        return (output[:, n_prefix:] if has_prefix and n_patches else output).mean(1)
    if output.ndim == 4:
        first, middle, last = output.shape[1:]
        if (first == middle) != (middle == last):
            channels_last = first == middle
        return output.mean((1, 2) if channels_last else (2, 3))
    raise UnknownLayer(
        f"wanted a layer with features, tokens or a map, got {list(output.shape)} from {layer!r}. "
        "Name the block that holds it."
    )
