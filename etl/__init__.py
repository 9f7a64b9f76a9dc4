"""Files into the database: everything ugly about input ends here.

The doors are `load`, and `add_images` for images without features. It knows files and SQL; it knows
no classifier and no HTTP.

    sources   which file is which split of which backbone
    streams   the bytes of a file, whatever it is packed in
    header    which column is what
    cells     what a cell may hold, and which one is at fault
    rows      text to typed rows, or a refusal that names the line
    parser    the rows that are written plainly, as fast as the machine can
    tables    Parquet and arrays to typed rows
    reading   the one of these that a file needs
    identity  which image a row is
    moments   per-class moments and quantiles, in the one pass over the rows
    kernels   the compiled loops under parser, identity and moments
    part      one file into the tables
    memory    what was freed, back to the system
    database  a fresh file, checked, then put in place of the old one
    present   what the present database holds, and what of it goes over into the next
    finishing splits, classes, views and checks, once every row is in
    loader    the order of events
    command   the same on the command line; options: what can be asked of it there

Beside the database, in any order after a load:

    predictions       what models trained elsewhere say of images, from files
    adding            images that come with predictions, without features
    matching          which image a path means, whatever folders stand around it
    images            the file of each image, under the configured roots
    covariates        a file of annotations to typed columns
    annotations       attaches them to the images
    image_statistics  brightness, sharpness and the like of one image file
    measuring         of all of them, in processes side by side
    sidecar           the Parquet files that the views read
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from etl.errors import LoadRefused

if TYPE_CHECKING:
    from etl.adding import NamedImages, PlacedImages, add_images
    from etl.loader import LoadReport, load
    from etl.part import PartReport

__all__ = [
    "LoadRefused",
    "LoadReport",
    "NamedImages",
    "PartReport",
    "PlacedImages",
    "add_images",
    "load",
]

# behind their names until they are asked for: the compiled loops take most of a second to import
_HOMES = {
    "NamedImages": "etl.adding",
    "PlacedImages": "etl.adding",
    "add_images": "etl.adding",
    "LoadReport": "etl.loader",
    "load": "etl.loader",
    "PartReport": "etl.part",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
