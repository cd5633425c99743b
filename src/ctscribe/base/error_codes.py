"""Every code that the package raises or notes: what it means, and what to do."""

from typing import NamedTuple


class Code(NamedTuple):
    """What a code means in general, and the remedy with which an error's sentence ends."""

    meaning: str
    remedy: str


def _parse(table: str) -> dict[str, Code]:
    """Reads pairs of lines: the code with its meaning, then its remedy, indented."""
    lines = table.strip().splitlines()
    rows = (first.split(maxsplit=1) for first in lines[::2])
    return {
        code: Code(meaning, remedy.strip())
        for (code, meaning), remedy in zip(rows, lines[1::2], strict=True)
    }


_FAILURES = _parse("""
E_4D                 The file holds several volumes (phases, channels).
    Split it and give one.
E_AFFINE             The header's axes are no position in a patient: not finite, parallel or absurd.
    Export the volume again or correct its header.
E_ARCHIVE            A zip archive is no plain, bounded archive of one DICOM series.
    Unpack it yourself and give the folder.
E_BITS               Values exceed the number of bits that a DICOM header states.
    Export the original CT images.
E_BOMB               A compressed file would inflate further than any CT does.
    Check where it comes from.
E_BUSY               Another run is at work in the folder.
    Wait for it to end.
E_CACHE              A stored array is not what was written.
    Run the stage that writes it again; it redoes what is damaged.
E_CARD               Reports of a view, from which a card is made, are missing or there twice.
    Write one file of reports for each view that `ctscribe alter` gives.
E_CELL               A cell of an experiment ended with an error.
    Run the same command again; it continues.
E_CHECKPOINT         A checkpoint of a run in training is not what was written.
    Delete it and run the command again; it goes on from an earlier one, or begins anew.
E_CHECKSUM           A gzip file fails its own check: bytes were altered.
    Copy or download it again.
E_CODEC              The DICOM series is compressed in a way that cannot be read here.
    Run `pip install ctscribe[dicom-codecs]`, or export it uncompressed.
E_COLUMN             A table lacks a column, or has one too many.
    Correct, add or remove the column.
E_CSV                A file is no CSV, or one of its lines is broken.
    Mend the quotes, the commas or the empty cell that is named.
E_CUES               Nobody tells a run its findings as it learned, or a table of them is wrong.
    Run `ctscribe tune`, or give a CSV of VolumeName and 18 probabilities by `--cues`.
E_DATATYPE           The voxels are colours, complex numbers or pictures of 8 bits.
    Export the CT itself, not a rendering.
E_DEPENDENCE         A card does not show the dependence on the scan that `--min-dependence` asks.
    Read the card; show all views of more patients, or train with negatives or for longer.
E_DICOM_SR           A DICOM SR was asked for, but highdicom, which writes it, is not installed.
    Run `pip install ctscribe[dicom-sr]`.
E_DICOM_TAG          A slice lacks a tag that says where it lies or what it is, or one is unusable.
    Export the series again.
E_DIMENSIONS         The header claims no dimensions, too many, or empty ones.
    Export the volume again.
E_DUPLICATE          A table names a volume twice.
    Remove one of the two rows.
E_DUPLICATE_SLICE    Two different slices of a series lie at one position.
    Remove one of the two acquisitions.
E_EMPTY              The file has no bytes.
    Download it again.
E_EMPTY_REPORT       A report has no findings.
    Leave the study out, or add the text.
E_EMPTY_SPLIT        A split has too few patients to be of use.
    Prepare more patients, choose another split, or raise `splits.validation_fraction`.
E_ENCODER            Features of another encoder are missing, or are not those that are read.
    Take sound ones in by `ctscribe import-features`; docs/encoders.md says how they are given.
E_ENCODING           A table is not UTF-8 text.
    Save it again as UTF-8, or convert it with iconv from what it is, such as cp1254 or latin-1.
E_ENDPOINT           A server that shall write reports does not answer, or not as OpenAI's do.
    Look at its log, start it again, and run the command again; it continues.
E_ENGINE             The engine that should do the work is not installed or not running.
    Install or start it, go where it is, or use `--engine local`.
E_EVALUATE           There is nothing to score, or no report to compare with blindly.
    Choose another split, prepare the training split too, or give reports of other patients.
E_EXISTS             Another data set, list of scans, or scan's draft is there already.
    Choose another folder.
E_EXPORT             The run cannot be exported as asked.
    Export the whole weights; train without `model.slice_attention` to serve elsewhere.
E_FEATURES           Stored features are missing or damaged.
    Delete the file and run the command again.
E_FITTED             What `calibrate` or `tune` left in a run is not of this version.
    Run it again.
E_FRAMES             Frames do not come in pairs with sides that are whole visual tokens.
    Prepare with the `slices.token_side_px` of the model, 28 or 32, and set `slices.num_slices`.
E_GAP                Slices are missing from a series.
    Export it completely.
E_GEOMETRY_CONFLICT  A NIfTI file's sform and qform disagree.
    Correct its header, or decide with `--prefer sform` or `--prefer qform`.
E_GRID               The grid of a study's visual tokens has odd sides.
    Make frames whose sides are multiples of `slices.token_side_px`.
E_HEADER             A NIfTI header points outside the file or into itself.
    Export the volume again.
E_HU_AMBIGUOUS       The values look like CT both before and after rescaling.
    Look at the volume and set `volume.intensity` to raw or hu.
E_INTERNAL           Something went wrong that nobody foresaw.
    Report it with that file, which holds places in the code and nothing of your data.
E_JSON               A file is not the JSON that a stage or another tool should have written.
    Correct it, or delete it and run its stage again.
E_KEY                A file given as the key of new names holds none.
    Give the key that the first list was made with, or leave it out and a new one is made.
E_LABELS             A label is neither 0 nor 1.
    Add or correct its row in the labels file; pairs of the strategy gauss need none.
E_LABEL_HEAD         A file of a label head's probabilities does not fit the scans.
    Correct the cell that is named, or add the rows that lack.
E_MANIFEST           A manifest of own scans has wrong columns or rows.
    Mend what is named.
E_MASK               A file is no sound NIfTI mask, or holds other masks than are named.
    Export the mask again, with the geometry of its scan, 0 outside and 1 inside.
E_MEMORY             A volume or a training step does not fit into memory.
    Use fewer processes, or lower `slices.num_slices` or `train.pairs_per_device`.
E_METADATA           A cell of CT-RATE's metadata is no number.
    Correct the metadata file.
E_METEOR             METEOR was asked for, but pycocoevalcap or Java is not there.
    Install both (`pip install pycocoevalcap==1.2`, and Java), or set `evaluate.meteor` to false.
E_MISSING            A file or folder is not there.
    Correct the path, download it, or run the stage that writes it.
E_MIXED_GEOMETRY     The slices of a series differ in size, pixel spacing or direction.
    Export the reconstructions into separate folders.
E_MIXED_PATIENT      A folder holds images of several patients.
    Give each patient an own folder.
E_MULTIFRAME         A file holds many frames, but is no enhanced CT image.
    Export it as classic or enhanced CT images.
E_NAN                Too many voxels, or the loss, are no finite numbers.
    Export the volume again; in training, lower `train.learning_rate` in a new folder.
E_NIFTI_PAIR         One file of a .hdr/.img pair is missing.
    Put both into one folder.
E_NOT_CT             A DICOM folder holds no axial CT images, and only these make a chest.
    Give the folder of the CT series.
E_NOT_DICOM          A folder holds no DICOM file.
    Give the folder of a series or a NIfTI file.
E_NOT_HU             The values are no Hounsfield units.
    Give slope and intercept, or export the volume again as CT.
E_NOT_MEDICAL        The file is a web page, a Git LFS pointer or the like.
    Download the volume itself (git lfs pull), unpack it, or convert it to .nii.gz.
E_NOT_NIFTI          The file does not begin as a NIfTI file.
    Convert it to .nii.gz, or give the folder of its DICOM series.
E_NO_CHEST           CT-RATE's authors list the volume as not showing a chest.
    Do nothing: it is left out.
E_NO_CONTENT         Every voxel has the same value.
    Export or download the volume again.
E_NO_GEOMETRY        The header does not say where the voxels lie.
    Give the volume's metadata row, or set the header.
E_NO_IMAGES          A document that refers to images was asked for of a scan without any.
    Give the DICOM series, or leave out `--dicom-sr` and `--with-identity`.
E_NO_LABELS          A volume lacks its row in the labels file.
    Add the row, label the reports with `ctscribe label`, or do without the labels file.
E_NO_NEGATIVE        No other patient's volume can serve as a negative.
    Prepare more patients, or use the strategy gauss.
E_NO_QUERIES         The run has no finding queries.
    Start from a warm-up, with `--set model.slice_attention=true` or `model.cues=true`.
E_NO_REPORT          A volume has no report, or no row in the reports file.
    Add its report, or leave the volume out; drafts alone need none.
E_NO_RESCALE         There is no slope and intercept to make Hounsfield units with.
    Export the original CT images, add the metadata, or set `volume.intensity` to hu if it is HU.
E_NO_SPACING         Header and metadata both lack the voxel size.
    Fill in the metadata, or use the file with a header.
E_OPERATING_POINT    No threshold reaches the operating point that was asked for.
    Ask for f1, or for less coverage or precision.
E_OPTIMIZER          The optimiser that was asked for is not installed, or not where it runs.
    Run `pip install ctscribe[bitsandbytes]` on a machine with a GPU, or set `train.optimizer` anew.
E_OPTION             Two options contradict each other.
    Leave out one of them, or give what it goes with.
E_ORIENTATION        A blank header's axes would not be those that CT-RATE uses.
    Use the release with true headers.
E_OVERFLOW           Visual tokens are not finite in the model's number type.
    Check the weights, or set `model.dtype` to float32.
E_PAIRS              Pairs do not fit the prepared studies or the recipe.
    Run `ctscribe pairs` again.
E_POSITIONS          Slice positions are missing or too many for this way of counting them.
    Use fewer slices, larger frames or another `model.positions`, or prepare the study again.
E_PREDICTION         A predicted scan has no reference, or two.
    Correct the file, or give the references, split or folder that it was written for.
E_PREPARED           The frames are of other knobs than are asked for, or of another version.
    Give the recipe they were prepared with, or prepare into another folder.
E_PROCESSES          A stage that runs in one process was launched in several.
    Launch it without torchrun or accelerate.
E_QUEUE              The server that writes drafts has no place for another, or is ending.
    Ask again after the seconds that Retry-After names.
E_RADEVAL            A metric of RadEval was asked for, but cannot run here.
    `pip install "ctscribe[radeval]"`, put what is named where it is named, or leave it out.
E_READ               A file cannot be read.
    Correct its path, its permissions or its disk.
E_RECIPE             A recipe is not given, or has an unknown or impossible knob.
    Give one by `--recipe`, or correct what is named.
E_REMOTE             Scans would be sent to another machine.
    Give an endpoint of this machine, or read what is sent and pass `--allow-remote`.
E_REPORT             A report is empty, or holds the tokenizer's own signs.
    Correct the text, or leave the study out.
E_REQUEST            The server does not answer such a request.
    Ask as docs/serving.md says.
E_ROW                A line of a JSONL file is not what its stage wrote.
    Mend the line, or run the stage again.
E_RUN                The folder holds no run of this version.
    Train it again.
E_RUN_EXISTS         The folder or file was made with other settings.
    Write elsewhere: choose another folder or file, or remove it.
E_SCAN               Reconstructions of one scan have different reports or labels.
    Mend the tables and prepare again.
E_SCORES             Files that should go into one table hold no scores, or of other scans.
    Give scores.json files of the same scans, or one comparison.json.
E_SEED               The warm-up would draw the data set's own patients.
    Change `warm_up.seed`.
E_SERIES             A DICOM folder holds no series of the number or UID that was asked for.
    Give one of those that are named by `--series`, or leave it out.
E_SERVE              The server cannot run here: a package lacks, or its address is taken.
    Run `pip install "ctscribe[serve]"`, or choose another `--host` or `--port`.
E_SHARD              A shard is not written as i/n.
    Write, for the second of eight, 2/8.
E_SHARDED            Training was launched with a kind of sharding that is not supported.
    Launch FSDP2 on two CUDA GPUs or more, as in `recipes/launching`, or whole models by `torchrun`.
E_SHARE              Other launched processes do not do their share of the work.
    Look why they ended and run the same command again; it goes on.
E_SHEAR              The slices lean further than `volume.max_tilt_degrees`, or are sheared.
    Raise the limit, or resample the volume upright.
E_SKIPPED            Some volumes could not be prepared or drafted.
    Read the rows that are named, or pass `--allow-failures`.
E_SOURCE             The data set is neither a folder nor a manifest.
    List your scans in a .csv or .jsonl manifest.
E_SPACING            Voxels are smaller than 0.05 mm or larger than 20 mm.
    Correct the header or the metadata, or believe the sform with `--prefer sform`.
E_TABLE              What was handed over in Python is no report, or no table of reports.
    Give texts in one order, names with texts, dicts, or a data frame.
E_TOKENIZER          The tokenizer does not write its model's prompts.
    Use the tokenizer that came with the weights.
E_TOO_FEW            There are fewer pairs than one training step takes.
    Prepare more studies, or lower `train.pairs_per_device`.
E_TOO_FEW_SLICES     The volume has too few slices for a chest, or for the frames asked for.
    Give the whole series, or lower `slices.num_slices`.
E_TOO_LARGE          The header claims more voxels than any CT has.
    Export the volume again.
E_TOO_LONG           Prompt, visual tokens and report exceed the length limit.
    Use fewer slices or smaller frames.
E_TRAILING           Other bytes follow where the file should end.
    Copy, download or export it again.
E_TRUNCATED          The file ends early, or is damaged.
    Copy or download it again.
E_UNEVEN_SPACING     Slices lie at unequal distances, or one lies beside the line of the others.
    Export one evenly spaced reconstruction.
E_UNHEALTHY          The doctor found volumes with problems.
    Mend them, or skip them with `prepare --allow-failures`.
E_UPLOAD             An upload is larger than the server takes.
    Send less, such as one series or a compressed file, or start it with more `--max-upload-mb`.
E_VISUAL_TOKENS      Text and frames disagree on the number of visual tokens.
    Build both from the same grid.
E_VOLUME_NAME        A file is not named as CT-RATE names its volumes.
    Rename it, or list own scans in a manifest.
E_WEIGHTS            Weights are missing, incomplete or of another model.
    Give the folder of a complete checkpoint, or a published model.
E_WHERE              Boxes and masks come in none of the forms that are read.
    Give a truth.jsonl, a table or manifest that names masks, or a folder of them.
E_WORKER             A worker process was ended from outside, twice, at the same volume.
    Look at the volume; give it more memory, or leave it out.
E_WRITE              A file cannot be written.
    Free some space or choose another folder, and run the command again; what was done is kept.
""")
"""Codes with which a volume or a command is refused, in alphabetical order."""

_NOTES = _parse("""
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
W_DERIVED            The DICOM series is a projection or map, such as a MIP, not the scan itself.
    Give the original series.
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
    Choose by `--series`, or give the folder of one series, if another is meant.
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
W_SERIES_JOINED      Each slice was a series of its own; those that make one stack were joined.
    Check that they are one series; whoever removes names from files may number them anew.
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
"""Codes in the record of a volume that is used all the same, in alphabetical order."""

CODES = _FAILURES | _NOTES
