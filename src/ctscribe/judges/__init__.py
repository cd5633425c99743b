"""Readers that can take the rule labeler's place: a text classifier, and a language model."""
