"""ReaL: what experts say is to be seen in each image of ImageNet's validation set.

Source: Beyer, Hénaff, Kolesnikov, Zhai & van den Oord (2020), Are we done with ImageNet?; the
labels come inside the package timm (Apache-2.0).
"""

import json
from importlib.util import find_spec
from pathlib import Path

from models.errors import LabelsMissing

_FILE = "data/_info/imagenet_real_labels.json"


def real_labels() -> dict[str, list[int]]:
    """Return the class numbers that are right for each validation image, by its file name.

    A list may be empty: no class was found to be right. timm itself is not imported, which would
    take seconds, and torch.

    Raises
    ------
    LabelsMissing
        timm is not installed, or ships the labels no longer.

    Examples
    --------
    >>> labels = real_labels()
    >>> len(labels), labels["ILSVRC2012_val_00000003.JPEG"]
    (50000, [230, 231])
    """
    found = find_spec("timm")
    folders = [] if found is None else found.submodule_search_locations or []
    file = next((Path(folder) / _FILE for folder in folders), None)
    if file is None or not file.is_file():
        raise LabelsMissing("wanted timm with its ReaL labels, got none. Run make install.")
    labels = json.loads(file.read_text(encoding="utf-8"))
    return {f"ILSVRC2012_val_{i:08d}.JPEG": right for i, right in enumerate(labels, start=1)}
