"""The chapters of a report: each from answers to blocks; `write` puts them in order."""
