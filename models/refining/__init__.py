"""What may be changed about a head, so as to test why a gap is there.

recipes      the vocabulary: each recipe is said as the training that makes the refined head
stability    features whose meaning hangs on which images of a class one looks at, by train rows
adapting     corrections that read test inputs: diagnostics alone, cross-fitted over halves
"""
