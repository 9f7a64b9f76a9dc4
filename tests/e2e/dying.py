"""A reader of images that one of them ends; apart, since a process that is spawned imports it."""

import os

from etl.image_statistics import measure_file

DEADLY = "v2/1/1.png"


def measure_or_die(images):
    if any(image.file == DEADLY for image in images):
        os._exit(1)
    return [measure_file(image.root, image.file) for image in images]
