"""The catalogue of bad inputs: what is known to reach a reader of CT, and how each row ends.

One line per row: its number, the codes it may end in (- where all of it is read as it is, or
kept out), and the input after a bar. The tests beside build each row and hold it to these codes;
``docs/errors.md`` shows the table.
"""

from typing import NamedTuple


class BadInput(NamedTuple):
    """One row of the catalogue."""

    codes: frozenset[str]
    """Every code that the row's inputs end in; none where they are read or kept out."""
    told: str
    """What the input is."""


def _parse(table: str) -> dict[int, BadInput]:
    rows = {}
    for line in table.strip().splitlines():
        head, told = line.split("|")
        number, *codes = head.split()
        rows[int(number)] = BadInput(frozenset(codes) - {"-"}, told.strip())
    return rows


CATALOGUE = _parse("""
1 E_EMPTY | A file without bytes.
2 E_TRUNCATED | gzip data cut anywhere.
3 E_CHECKSUM | A gzip file whose CRC, size or compressed bits were altered.
4 E_TRAILING E_TRUNCATED W_TRAILING | Garbage, or zeros, after the gzip data.
5 - | A gzip file of several members.
6 W_SUFFIX | A plain file named .nii.gz, gzip named .nii, a suffix in capitals.
7 E_NOT_MEDICAL | A web page, login page or Git LFS pointer saved as .nii.gz.
8 E_TRUNCATED E_TRAILING W_TRAILING | A header that claims more or fewer voxels than follow.
9 E_DIMENSIONS E_TOO_LARGE | Dimensions of 0, below 0, too many, or 32767 x 32767 x 32767.
10 E_BOMB E_TRUNCATED E_TRAILING | A small file that inflates to gigabytes.
11 E_DATATYPE W_BITPIX | Colours, complex numbers, bits, unknown types; a wrong number of bits.
12 W_CLIPPED W_METAL W_PADDING W_RELEASE | Every type of number, in either byte order.
13 W_NAN E_NAN | Voxels that are no number: few, many, all.
14 E_NO_CONTENT W_REPEATED_SLICES | One value throughout; five equal slices.
15 W_SLOPE | A slope of 0, NaN or infinity; an intercept of NaN.
16 E_HU_AMBIGUOUS E_NOT_HU E_NO_RESCALE W_RELEASE | HU with a slope beside them; raw without one.
17 E_NOT_HU | Values from 0 to 4095, 0 to 255, 0 to 1 or -1 to 1.
18 W_PADDING W_METAL | Padding of -2000, -2048, -3024 or -8192; metal above 3071 HU.
19 W_CLIPPED W_METAL | Scaling that would overflow 16 bits.
20 E_GEOMETRY_CONFLICT W_PIXDIM | An sform and a qform that disagree; --prefer decides.
21 W_TILT E_SHEAR | A leaning stack (gantry tilt), a sheared slice.
22 E_AFFINE E_SPACING E_NO_GEOMETRY W_PIXDIM | Affines flat, unset or no number; a false pixdim.
23 W_UNITS E_SPACING | Metres, micrometres, no unit.
24 W_SPACING W_FIELD E_SPACING | Voxels and fields of view that few or no scanners have.
25 - | Each of the 48 orientations of one volume.
26 E_TOO_FEW_SLICES | Two dimensions, one slice, 19 slices.
27 W_4D E_4D | A fourth dimension of 1, of 2, a fifth.
28 E_HEADER E_NOT_NIFTI | An impossible voxel offset, extensions that never end, bad magic.
29 E_NOT_MEDICAL | NIfTI-2 and .hdr/.img pairs, which are read; .nii.zst, which is not.
30 - | 512 x 512 x 1500 and 1024 x 1024 x 800 voxels.
31 E_GAP E_UNEVEN_SPACING W_DUPLICATE_SLICE E_DUPLICATE_SLICE | Slices missing, or twice there.
32 W_OTHER_SERIES W_OTHER_FILES E_SERIES E_MIXED_GEOMETRY | Series, phases, scouts, films together.
33 E_MIXED_PATIENT | Two patients in one folder.
34 E_NO_RESCALE | DICOM slices without slope and intercept; with one each, which are read.
35 E_DICOM_TAG | DICOM slices without position, direction or pixel size.
36 W_SERIES_JOINED | Slices numbered backwards, each a series; every position of the patient.
37 E_NOT_CT W_BODY_PART W_NOT_CHEST W_DERIVED | Another modality, plane, part of the body; a MIP.
38 E_TRUNCATED E_BITS E_NOT_HU | DICOM files cut, of absurd size, of the wrong bits or sign.
39 E_CODEC | Every compression of DICOM; a decoder that is missing; a wholly deflated file.
40 E_CODEC E_TRUNCATED E_BOMB | Deflated bombs, endless nesting, elements of 4 GB, endless decoding.
41 W_PREAMBLE | A DICOM file that is a program as well.
42 E_ARCHIVE E_BOMB E_TRUNCATED | Paths out of an archive, links, nested and endless archives.
43 E_NOT_DICOM E_MISSING E_READ | Strange names, which are read; folders, links and pipes as files.
44 W_BURNED_IN | Patient data wherever files hold them: kept out of every output, log and error.
45 - | Markup and control characters in texts: shown as text.
46 E_COLUMN E_CSV E_DUPLICATE E_EMPTY_REPORT E_ENCODING E_MANIFEST E_METADATA | Tables torn or odd.
47 E_MANIFEST E_MISSING | A patient in both splits, a negative like its positive, a missing file.
48 E_CACHE E_WEIGHTS | Pickles, absurd shapes, damaged weights: refused, and no code run.
49 E_BUSY E_CACHE E_RUN_EXISTS E_WRITE | A cache damaged, of other settings, shared, on a full disk.
50 - | A stage killed at any moment: started again it ends the same.
51 E_MEMORY E_NAN E_REPORT E_TOO_LONG | Losses that are no number, full devices, texts too long.
52 E_RECIPE | Unknown, misspelt and impossible knobs.
54 - | Another locale, time zone, umask or way of starting processes: the same output.
""")
"""By number."""
