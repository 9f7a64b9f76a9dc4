"""Files into the database: everything ugly about input ends here.

The door is `load`. It knows files and SQL; it knows no classifier and no HTTP.

    sources   which file is which split of which backbone
    header    which column is what
    rows      bytes to typed rows, or a refusal that names the line
    moments   per-class moments and quantiles, in the one pass over the rows
    part      one file into the tables
    database  a fresh file, checked, then put in place of the old one
    loader    the order of events

Beside the database, in any order after a load:

    matching          which image a path means, whatever folders stand around it
    images            the file of each image, under the configured roots
    covariates        a file of annotations to typed columns
    annotations       attaches them to the images
    image_statistics  brightness, sharpness and the like of one image file
    measuring         of all of them, in processes side by side
    sidecar           the Parquet files that the views read
"""

from etl.errors import LoadRefused
from etl.loader import LoadReport, load
from etl.part import PartReport

__all__ = ["LoadRefused", "LoadReport", "PartReport", "load"]
