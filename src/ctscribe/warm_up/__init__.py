"""Look first, then write: the tower learns where findings are, before any report is read."""
