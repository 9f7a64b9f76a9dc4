"""Makes `import torchvision` work where its compiled operators do not fit the installed torch.

torchvision's CUDA build beside a CPU build of torch fails at import with `operator
torchvision::nms does not exist`, and timm imports torchvision. timm's networks need none of these
operators, only their names: declaring the names lets the import go through.
"""

import importlib
import sys
from types import ModuleType

import torch

# schemas as torchvision registers them
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[torch.library.Library] = []  # a library unregisters its names when collected


def import_torchvision() -> ModuleType:
    """Return torchvision, with the missing operator names declared where its import needs them.

    Where torchvision works as it is, nothing else happens.

    Raises
    ------
    RuntimeError
        The import fails for another reason.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for schema in _SCHEMAS:
        library.define(schema)  # type: ignore[no-untyped-call]
    _declared.append(library)
    return importlib.import_module("torchvision")
