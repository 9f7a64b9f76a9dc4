"""Images into feature files: `gapscope extract`.

The door is `extract`.

    images        which images a folder holds, and which labels they have
    steps         the order of events: compute what is missing, then one file, then its record
    parts         what is computed, in pieces that survive a kill
    feature_file  the pieces as CSV or Parquet
    command       the options and the report of the command line
"""

from service.extraction.images import ImageClass, ImageList, find_images
from service.extraction.steps import Extraction, ExtractionReport, extract

__all__ = [
    "Extraction",
    "ExtractionReport",
    "ImageClass",
    "ImageList",
    "extract",
    "find_images",
]
