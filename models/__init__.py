"""Arrays to numbers: classifiers on frozen features, and why their scores differ.

    heads      trains and applies classifiers; the door is `models.heads.train`
    gap        explains the difference of two scores; the door is `models.gap.report`
    estimate   the one record that every number with an interval is
    backbones  images to features; the door is `models.backbones.open_backbone`
    real_labels  the ReaL labels of ImageNet's validation images

It knows NumPy and torch; it knows no database, no HTTP and no drawing.
"""

import os

# OpenMP's threads spin while they wait for one another. Beside other programs (a service, another
# worker) that takes the cores from those who have work: a fit of 576 rows took 150 s, and 10 s
# without. Read when torch is loaded, so it stands before all imports.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
