"""Chest-CT report writers that look at the scan instead of reciting the template."""

__version__ = "0.2.0"
RESEARCH_USE = "Research use only. Not a medical device. Do not use for clinical decisions."
