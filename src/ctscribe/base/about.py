"""What the package says of itself, for every wing and every file that it writes."""

__version__ = "0.2.0"
RESEARCH_USE = "Research use only. Not a medical device. Do not use for clinical decisions."
