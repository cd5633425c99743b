"""Every code that stands in the record of a volume that is used, in alphabetical order."""

from ctscribe.errors.code import parse

NOTES = parse("""
W_4D                 The header has more than three dimensions, of which only three are used.
    Nothing.
W_BITPIX             The header states another number of bits than its datatype has.
    Nothing; the datatype is believed.
W_BODY_PART          The DICOM header names another part of the body.
    Look at the volume; it may not be a chest CT.
W_BURNED_IN          The DICOM header says that text is burned into the images.
    Look at the frames before they leave your hands; the text may name the patient.
W_CLIPPED            Some values exceeded 16 bits and were limited to them.
    Look at the volume.
W_DUPLICATE_SLICE    A slice was there twice and was used once.
    Nothing.
W_FIELD              The field of view is narrower than 150 mm or wider than 700 mm.
    Check the voxel size.
W_METAL              Voxels above 3071 HU, metal, were limited to it.
    Nothing.
W_NAN                A few voxels had no number and became air.
    Look at the volume.
W_NOT_CHEST          No lungs were found.
    Look at the volume; it may not be a chest CT.
W_NO_POSITION        The metadata do not say where the volume lies.
    Positions count from its first voxel.
W_OTHER_FILES        Some files beside the series are no DICOM.
    Nothing; they were passed over.
W_OTHER_SERIES       The folder holds other CT series; one was chosen by the rule in the record.
    Give the folder of one series if another is meant.
W_PADDING            Voxels outside the scan were padded; they became air.
    Nothing.
W_PIXDIM             The header's pixdim states other voxels than the affine that was believed.
    Check which is right.
W_PREAMBLE           A DICOM file begins as a program or another kind of file does.
    Check where it comes from; that part is not read and not passed on.
W_RELEASE            The header looks like one release of CT-RATE, the values like the other.
    Nothing; the values decided. Check where the file comes from.
W_REPEATED_SLICES    At least five neighbouring slices are equal.
    Look at the volume; it may be cut.
W_SLOPE              The header's scaling is impossible and was not applied.
    Look at the volume.
W_SPACING            Voxels are outside 0.2 to 2 mm in the plane, or more than 10 mm apart.
    Check the header.
W_SPACING_METADATA   Header and metadata state different voxel sizes; the header was believed.
    Check which is right.
W_SUFFIX             The file's name says gzip and its content does not, or the other way round.
    Nothing; the content was believed.
W_TILT               The slices leaned (gantry tilt) and were set upright; the record has the angle.
    Nothing.
W_TRAILING           A few bytes follow the last voxel, or zeros the end of the gzip data.
    Nothing; they were not read.
W_UNITS              The header does not state millimetres; voxels that a CT can have decided.
    Check the voxel size.
""")
