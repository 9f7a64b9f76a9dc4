"""Hypotheses about a gap: registered before they are scored, scored once, judged as a family.

schemas     what is asked and answered
registry    what is registered and what came of it: records that are only added; verdicts
testing     trains the refined head on train rows, and scores it once beside its baseline
suggesting  up to eight hypotheses from findings on the explore halves
routes      /hypotheses, over HTTP
command     `gapscope hypotheses`
"""
