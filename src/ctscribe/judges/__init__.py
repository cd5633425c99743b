"""A reader that can take the rule labeler's place: a text classifier."""
