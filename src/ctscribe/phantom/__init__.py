"""Synthetic chest CT in Hounsfield units whose every finding is known, with its report."""
