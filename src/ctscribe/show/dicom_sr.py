"""A draft as DICOM Structured Reports: one of its text, one of what it measures.

In: a draft and the images it was read from. Out: a Comprehensive SR after TID 2000, with sections
and sentences that point at the images they rest on; and a Comprehensive 3D SR after TID 1500, with
status, probability and size of each finding and with the boxes of the evidence in millimetres.
Both are preliminary, not verified, and the work of a device. The same draft gives the same bytes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TypeAlias, final

import numpy as np
from highdicom.sr import (
    CodedConcept,
    Comprehensive3DSR,
    ComprehensiveSR,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    ImageContentItem,
    ImageRegion3D,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    NumContentItem,
    ObservationContext,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    ScoordContentItem,
    SourceImageForMeasurementGroup,
    TextContentItem,
    TrackingIdentifier,
)
from jaxtyping import Float64
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from ctscribe.base.about import RESEARCH_USE
from ctscribe.base.files import sha256_of_json
from ctscribe.scan.frames import PreparedVolume
from ctscribe.scan.source_images import SourceImage, SourceSeries
from ctscribe.show.codes import (
    CT_CHEST_REPORT,
    DIAMETER,
    FINDING_CODES,
    FROM_TEXT,
    MILLIMETRE,
    OWN_SCHEME,
    PERCENT,
    PROBABILITY,
    SIDES,
    SITES,
    STATUSES,
    own_code,
)
from ctscribe.show.filing import filed, uid_of, written_at
from ctscribe.show.page import printable
from ctscribe.show.patient_report import PatientReport, to_json
from ctscribe.text.sections import split_report
from ctscribe.text.sizes import Extent, stated_extents
from ctscribe.write.draft import Draft, FindingRow, SentenceRow, SliceEvidence

Outline = Float64[np.ndarray, "5 3"]
"""Corners of a box, the first once more at the end."""
OutlinePx = Float64[np.ndarray, "5 2"]
"""The same in an image, as (column, row)."""

_Group: TypeAlias = (
    MeasurementsAndQualitativeEvaluations | PlanarROIMeasurementsAndQualitativeEvaluations
)

_SERIES_NUMBER = 9900
"""Above those that scanners and workstations count up."""
_DESCRIPTION = "Draft by a model. Research use only. Not a medical device."
_WHOLE, _CUT, _NONE = "", "The text ran into its length limit.", "No report was written."
"""CompletionFlagDescription; of a whole text there is none."""

_COMPUTED_TOMOGRAPHY = Code("77477000", "SCT", "Computed tomography")
_PROCEDURE = Code("55111-9", "LN", "Current Procedure Descriptions")
_PROCEDURE_TEXT = Code("121065", "DCM", "Procedure Description")
_FINDINGS = Code("59776-5", "LN", "Findings")
_FINDING = Code("121071", "DCM", "Finding")
_IMPRESSIONS = Code("19005-8", "LN", "Impressions")
_IMPRESSION = Code("121073", "DCM", "Impression")
_ILLUSTRATION = Code("121080", "DCM", "Best illustration of finding")
_CERTAINTY = {
    _FINDING: Code("111012", "DCM", "Certainty of Finding"),
    _IMPRESSION: Code("111013", "DCM", "Certainty of Impression"),
}
_BOX_WIDTH = own_code("box-width", "Width of the evidence box in its slice")
_BOX_HEIGHT = own_code("box-height", "Height of the evidence box in its slice")


def dicom_documents(draft: Draft, report: PatientReport, source: SourceSeries) -> dict[str, bytes]:
    """Files by name: ``report.dcm``, and ``measurements.dcm`` where anything was written.

    Args:
        draft: Of a scan that was read from ``source``.
        report: The draft with its sentences, as the page shows them.
        source: Its images; under their own names where their identity was read, else `filed`
            under new ones.

    Raises:
        CtscribeError: ``E_NO_IMAGES`` for a draft of a scan that could not be shown.
    """
    source = filed(source, draft)
    assert draft.prepared is not None  # else it could not be filed
    places = _Places(draft.prepared, source)
    paper = _Paper(draft, source, sha256_of_json(to_json(report)))
    text = _text_tree(report, paper, places)
    files = {"report.dcm": paper.file(ComprehensiveSR, text, 1)}
    if report.labels:
        measured = _measured_tree(draft, report, paper, places)
        files["measurements.dcm"] = paper.file(Comprehensive3DSR, measured, 2)
    return files


@final
@dataclass(frozen=True)
class _Place:
    """A slice that a sentence rests on, in the images; outlines only where it has a box.

    ``outline_px`` is cut to the image, ``outline_lps_mm`` is the box as it was found.
    """

    image: SourceImage
    outline_lps_mm: Outline | None = None
    outline_px: OutlinePx | None = None


@final
@dataclass(frozen=True)
class _Places:
    """Where slices of the frames lie in the source's images."""

    prepared: PreparedVolume
    source: SourceSeries

    def of(self, row: SentenceRow) -> list[_Place]:
        """Of each slice that a sentence rests on."""
        return [self._place(shown) for shown in row.slices]

    def _place(self, shown: SliceEvidence) -> _Place:
        box = shown.box_px or (0, 0, 1, 1)
        left, top, right, bottom = (edge - 0.5 for edge in box)  # whole numbers are pixel centres
        corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
        inside = np.array([(*corner, shown.slice_index, 1.0) for corner in corners])
        outline_ras_mm = (inside @ self.prepared.frame_to_ras.T)[:, :3]
        image = self.source.nearest(outline_ras_mm[0])
        if shown.box_px is None:
            return _Place(image)
        rows, columns = self.source.geometry.size
        pixels = self.source.in_pixels(image, outline_ras_mm).clip(0, (columns, rows))
        lies_inside = np.ptp(pixels, axis=0).min() > 0
        return _Place(image, outline_ras_mm * (-1, -1, 1), pixels if lies_inside else None)


@final
@dataclass(frozen=True)
class _Paper:
    """What both documents of a draft have in common: patient, study, device, times, identifiers."""

    draft: Draft
    source: SourceSeries
    content_sha256: str

    def uid(self, *parts: str) -> str:
        """An identifier within these documents."""
        return uid_of(self.identity["StudyInstanceUID"], self.content_sha256, *parts)

    @property
    def identity(self) -> dict[str, str]:
        return dict(self.source.identity or {})

    def observer(self) -> ObservationContext:
        """The device that wrote."""
        made_by = self.draft.provenance
        device = DeviceObserverIdentifyingAttributes(
            uid=uid_of("device", made_by.ctscribe_version, made_by.weights_sha256),
            name=f"ctscribe {made_by.ctscribe_version}",
            manufacturer_name="ctscribe",
            model_name=printable(made_by.model_preset),
            serial_number=made_by.weights_sha256,
        )
        kind = CodedConcept("121007", "DCM", "Device")
        return ObservationContext(observer_device_context=ObserverContext(kind, device))

    def file(
        self, kind: type[ComprehensiveSR | Comprehensive3DSR], content: Dataset, number: int
    ) -> bytes:
        """A document's file."""
        made_by, at = self.draft.provenance, written_at(self.draft)
        uid = self.uid("document", str(number))
        document = kind(
            evidence=self._evidence(),
            content=content,
            series_instance_uid=self.uid("series"),
            series_number=_SERIES_NUMBER,
            sop_instance_uid=uid,
            instance_number=number,
            manufacturer="ctscribe",
            is_complete=not self._why_incomplete(),
            is_final=False,
            is_verified=False,
            series_description=_DESCRIPTION,
            manufacturer_model_name=made_by.model_preset,
            software_versions=made_by.ctscribe_version,
            device_serial_number=made_by.weights_sha256,
            content_qualification="RESEARCH",
            content_date=at.date(),
            content_time=at.time(),
            specific_character_set="ISO_IR 192",
        )
        document.InstanceCreationDate = document.ContentDate
        document.InstanceCreationTime = document.ContentTime
        for equipment in document.ContributingEquipmentSequence:  # highdicom names itself, and now
            equipment.ContributionDateTime = at.strftime("%Y%m%d%H%M%S")
        if self._why_incomplete():
            document.CompletionFlagDescription = self._why_incomplete()
        for keyword, value in self.identity.items():
            setattr(document, keyword, value)
        document.CodingSchemeIdentificationSequence = [_own_scheme()]
        content_bytes = BytesIO()
        document.save_as(content_bytes, enforce_file_format=True)
        return content_bytes.getvalue()

    def _why_incomplete(self) -> str:
        if self.draft.not_assessable is not None:
            return _NONE
        return _WHOLE if self.draft.finished else _CUT

    def _evidence(self) -> list[Dataset]:
        """One item per file of the source, without patient: highdicom doubts names and logs them.

        Elements that highdicom takes from it stay empty until `identity` fills them.
        """
        found: dict[str, Dataset] = {}
        for one in self.source.images:
            item = Dataset()
            item.SOPClassUID = one.sop_class
            item.SOPInstanceUID, item.SeriesInstanceUID, _ = _uids(one)
            item.StudyInstanceUID = self.identity["StudyInstanceUID"]
            for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex"):
                setattr(item, keyword, None)
            for keyword in ("AccessionNumber", "StudyID", "StudyDate", "StudyTime"):
                setattr(item, keyword, None)
            found.setdefault(item.SOPInstanceUID, item)
        return [*found.values()]


def _own_scheme() -> Dataset:
    item = Dataset()
    item.CodingSchemeDesignator = OWN_SCHEME
    item.CodingSchemeName = "Concepts of ctscribe"
    item.CodingSchemeResponsibleOrganization = "ctscribe"
    return item


def _uids(image: SourceImage) -> tuple[str, str, str]:
    assert image.uids is not None  # the source is filed
    return image.uids


def _text_tree(report: PatientReport, paper: _Paper, places: _Places) -> ContainerContentItem:
    """TID 2000: what stands above the text, then Findings and Impressions."""
    sections = [_container(_PROCEDURE, [_text(_PROCEDURE_TEXT, told) for told in _told(report)])]
    texts = [*report.findings, *report.impression]
    rows = (*report.sentences, *[None] * len(texts))
    sentences = list(zip(texts, rows, strict=False))
    parts = sentences[: len(report.findings)], sentences[len(report.findings) :]
    for (heading, name), part in zip(
        ((_FINDINGS, _FINDING), (_IMPRESSIONS, _IMPRESSION)), parts, strict=True
    ):
        if part:
            items = [_sentence(name, text, row, places) for text, row in part]
            sections.append(_container(heading, items))
    root = ContainerContentItem(
        CodedConcept.from_code(CT_CHEST_REPORT), is_content_continuous=False, template_id="2000"
    )
    root.ContentSequence = ContentSequence([*paper.observer(), *sections])
    return root


def _told(report: PatientReport) -> Iterator[str]:
    """What a reader must know first."""
    made_by = report.provenance
    yield f"{report.headline}. {RESEARCH_USE}"
    yield f"Study: {report.study}"
    if report.not_assessable is not None:
        yield f"Not assessable: {report.not_assessable}. No report was written."
    elif not (report.findings or report.impression):
        yield "The model wrote nothing."
    yield from report.notices
    yield (
        f"Written by {made_by.model_preset}, weights {made_by.weights_sha256}, recipe "
        f"{made_by.recipe_sha256}, ctscribe {made_by.ctscribe_version}, {made_by.created}."
    )


def _container(heading: Code, items: Sequence[ContentItem]) -> ContainerContentItem:
    section = ContainerContentItem(
        CodedConcept.from_code(heading), is_content_continuous=False, relationship_type="CONTAINS"
    )
    section.ContentSequence = ContentSequence(items)
    return section


def _text(name: Code, text: str) -> TextContentItem:
    return TextContentItem(
        CodedConcept.from_code(name), printable(text), relationship_type="CONTAINS"
    )


def _sentence(name: Code, text: str, row: SentenceRow | None, places: _Places) -> TextContentItem:
    """A sentence with how sure it is and the images it was inferred from."""
    item = _text(name, text)
    if row is None:
        return item
    below: list[ContentItem] = []
    if row.confidence is not None:
        below.append(
            NumContentItem(
                CodedConcept.from_code(_CERTAINTY[name]),
                _percent(row.confidence),
                CodedConcept.from_code(PERCENT),
                relationship_type="HAS PROPERTIES",
            )
        )
    seen: dict[tuple[str, int | None], _Place] = {}
    for place in places.of(row):  # both slices of a pair may lie nearest to one image
        seen.setdefault((_uids(place.image)[0], place.image.frame), place)
    below += map(_inferred_from, seen.values())
    if below:
        item.ContentSequence = ContentSequence(below)
    return item


def _inferred_from(place: _Place) -> ContentItem:
    """The image, or a box in it."""
    name = CodedConcept.from_code(_ILLUSTRATION)
    has_box = place.outline_px is not None
    image = ImageContentItem(
        name,
        place.image.sop_class,
        _uids(place.image)[0],
        referenced_frame_numbers=place.image.frame,
        relationship_type="SELECTED FROM" if has_box else "INFERRED FROM",
    )
    if not has_box:
        return image
    box = ScoordContentItem(name, "POLYLINE", place.outline_px, relationship_type="INFERRED FROM")
    box.ContentSequence = ContentSequence([image])
    return box


def _percent(probability: float) -> float:
    return round(100 * probability, 2)


def _measured_tree(
    draft: Draft, report: PatientReport, paper: _Paper, places: _Places
) -> ContainerContentItem:
    """TID 1500: a group for each finding, then one for each box of a finding that is stated."""
    evidence = dict(zip((*report.findings, *report.impression), report.sentences, strict=False))
    groups: list[_Group] = []
    for row in report.labels:
        rests_on = [
            place
            for sentence in row.sentences
            if row.status == "present" and sentence in evidence
            for place in places.of(evidence[sentence])
        ]
        groups.append(_finding_group(draft, row, paper, rests_on))
        boxes = {str(place.outline_lps_mm): place for place in rests_on}
        groups += [
            _box_group(draft, row, paper, number, place.image, place.outline_lps_mm)
            for number, place in enumerate(boxes.values(), 1)
            if place.outline_lps_mm is not None
        ]
    return MeasurementReport(
        observation_context=paper.observer(),
        procedure_reported=_COMPUTED_TOMOGRAPHY,
        imaging_measurements=groups,
    )[0]


def _finding_group(
    draft: Draft, row: FindingRow, paper: _Paper, rests_on: Sequence[_Place]
) -> MeasurementsAndQualitativeEvaluations:
    """Status, probability, size and images of one finding.

    It is named as a finding only where the text states it: who reads the name alone is then right.
    """
    measured = []
    if row.probability is not None:
        measured.append(Measurement(PROBABILITY, _percent(row.probability), PERCENT))
    extent = _extent(draft, row)
    if extent is not None and extent.size_mm is not None:
        measured.append(Measurement(DIAMETER, extent.size_mm, MILLIMETRE, method=FROM_TEXT))
    images = {(_uids(place.image)[0], place.image.frame): place.image for place in rests_on}
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(paper.uid(row.finding), row.finding),
        finding_type=FINDING_CODES[row.finding] if row.status == "present" else None,
        finding_sites=_sites(draft, row),
        measurements=measured or None,
        qualitative_evaluations=[
            QualitativeEvaluation(FINDING_CODES[row.finding], STATUSES[row.status])
        ],
        source_images=[
            SourceImageForMeasurementGroup(
                one.sop_class, _uids(one)[0], None if one.frame is None else [one.frame]
            )
            for one in images.values()
        ]
        or None,
    )


def _box_group(
    draft: Draft,
    row: FindingRow,
    paper: _Paper,
    number: int,
    image: SourceImage,
    outline_lps_mm: Outline,
) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    """A box that a stated finding rests on; its sides are the box's, not the lesion's."""
    sides_mm = np.linalg.norm(np.diff(outline_lps_mm[:3], axis=0), axis=1)
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            paper.uid(row.finding, str(number)), f"{row.finding}, evidence box {number}"
        ),
        referenced_region=ImageRegion3D("POLYGON", outline_lps_mm, _uids(image)[2]),
        finding_type=FINDING_CODES[row.finding],
        finding_sites=_sites(draft, row),
        measurements=[
            Measurement(name, round(float(side_mm), 3), MILLIMETRE)
            for name, side_mm in zip((_BOX_WIDTH, _BOX_HEIGHT), sides_mm, strict=True)
        ],
    )


def _sites(draft: Draft, row: FindingRow) -> list[FindingSite] | None:
    """Where the finding is, with the sides that the text names; None where it may be anywhere."""
    if row.finding not in SITES or row.status != "present":
        return None
    extent = _extent(draft, row)
    return [FindingSite(SITES[row.finding], SIDES.get(extent.sides) if extent else None)]


def _extent(draft: Draft, row: FindingRow) -> Extent | None:
    return stated_extents("\n".join(split_report(draft.text))).get(row.finding)
