"""A second look: slices read again, as crops at full resolution, where small findings may be."""
