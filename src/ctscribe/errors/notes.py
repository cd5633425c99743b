"""Every code that stands in the record of a volume that is used, in alphabetical order."""

from ctscribe.errors.code import parse

NOTES = parse("""
W_4D                 The header has more than three dimensions, of which only three are used.
    Nothing.
W_BITPIX             The header states another number of bits than its datatype has.
    Nothing; the datatype is believed.
W_CLIPPED            Some values exceeded 16 bits and were limited to them.
    Look at the volume.
W_DUPLICATE_SLICE    A slice was there twice and was used once.
    Nothing.
W_NAN                A few voxels had no number and became air.
    Look at the volume.
W_NOT_CHEST          No lungs were found.
    Look at the volume; it may not be a chest CT.
W_NO_POSITION        The metadata do not say where the volume lies.
    Positions count from its first voxel.
W_OTHER_FILES        Some files beside the series are no DICOM.
    Nothing; they were passed over.
W_OTHER_SERIES       The folder holds other CT series; the one with most slices was used.
    Give the folder of one series if another is meant.
W_PADDING            Voxels outside the scan were padded; they became air.
    Nothing.
W_REPEATED_SLICES    At least five neighbouring slices are equal.
    Look at the volume; it may be cut.
W_SLOPE              The header's scaling is impossible and was not applied.
    Look at the volume.
W_SPACING            Voxels are outside 0.2 to 2 mm in the plane, or more than 10 mm apart.
    Check the header.
W_SPACING_METADATA   Header and metadata state different voxel sizes; the header was believed.
    Check which is right.
W_TRAILING           A few bytes follow the last voxel.
    Nothing; they were not read.
W_UNITS              The header does not state millimetres; its unit was converted.
    Check the voxel size.
""")
