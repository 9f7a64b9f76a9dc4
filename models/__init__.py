"""Arrays to numbers: classifiers on frozen features, and why their scores differ.

    heads      trains and applies classifiers; the door is `models.heads.train`
    gap        explains the difference of two scores; the door is `models.gap.report`
    estimate   the one record that every number with an interval is
    backbones  images to features; the door is `models.backbones.open_backbone`
    real_labels  the ReaL labels of ImageNet's validation images

It knows NumPy and torch; it knows no database, no HTTP and no drawing.
"""
