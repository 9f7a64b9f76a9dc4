"""Images to features with a frozen timm network.

The door is `open_backbone`: a timm name, weights and a layer become one object that knows the
model's own transform and turns batches into features.

    network   the object, and how it is opened
    weights   where the weights are, or what to fetch and where to put it
    layers    any named layer as one vector an image
    lite0     the one network whose weights come inside a package
"""

from models.backbones.network import (
    Backbone,
    Transform,
    backbone_of,
    features_of_images,
    open_backbone,
    open_lite0,
)

__all__ = [
    "Backbone",
    "Transform",
    "backbone_of",
    "features_of_images",
    "open_backbone",
    "open_lite0",
]
