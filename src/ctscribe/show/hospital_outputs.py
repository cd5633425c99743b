"""What a hospital's systems take of a draft: DICOM SR and FHIR, beside its page.

In: the options of ``ctscribe report``, its source, and the draft. Out: files in the folder of the
draft. Who the patient is comes from the source's headers alone, and only where it is asked for.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import final

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import atomic_write, write_plain_json, writing
from ctscribe.scan.dicom_sources import is_dicom
from ctscribe.scan.source_images import SourceSeries, read_source_series
from ctscribe.show.fhir import Release, diagnostic_report
from ctscribe.show.report import report_of
from ctscribe.write.draft import Draft

DICOM_NAMES = "report.dcm", "measurements.dcm"
FHIR_NAME = "report.fhir.json"


@final
@dataclass(frozen=True, slots=True)
class HospitalOutputs:
    """Which documents are written beside a draft, and whether they name the patient."""

    dicom_sr: bool = False
    fhir: Release | None = None
    with_identity: bool = False

    def of(self, source: Path | None) -> "HospitalOutputs":
        """Those that one of many sources can have: without DICOM at hand FHIR alone, unnamed."""
        if source is None or not is_dicom(source):
            return HospitalOutputs(fhir=self.fhir)
        return self

    def read_source(self, source: Path | None, series: str | None = None) -> SourceSeries | None:
        """The source's images as far as the documents need them; None where they need none.

        Raises:
            CtscribeError: Before anything is written, what stands against these documents:
                ``E_MISSING``, ``E_NO_IMAGES`` for a source that is no DICOM, and as
                `read_source_series`.
        """
        if not (self.dicom_sr or self.with_identity):
            return None
        if source is None or not source.exists():
            raise CtscribeError("E_MISSING", "the scan must be a file or folder, but there is none")
        if not is_dicom(source):
            raise CtscribeError(
                "E_NO_IMAGES",
                "the scan must be a DICOM series, whose images and patient such documents refer "
                "to, but is a NIfTI file",
            )
        return read_source_series(source, "the scan", series, with_identity=self.with_identity)

    def save(self, draft: Draft, source: SourceSeries | None, out_dir: Path) -> list[Path]:
        """Writes the documents of a draft and returns their paths.

        Those of an earlier draft in the folder are removed, so that none stands beside a page that
        says otherwise. A scan that could not be shown has no image that an SR could refer to, and
        gets none.

        Args:
            draft: Of a scan that was read from ``source``.
            source: From `read_source`.
            out_dir: The draft's folder.
        """
        for name in (*DICOM_NAMES, FHIR_NAME):
            with writing(out_dir / name):
                (out_dir / name).unlink(missing_ok=True)
        report = report_of(draft)
        written = []
        if self.fhir is not None:
            identity = None if source is None else source.identity
            resource = diagnostic_report(draft, report, identity, self.fhir)
            write_plain_json(out_dir / FHIR_NAME, resource)
            written.append(out_dir / FHIR_NAME)
        if self.dicom_sr and draft.prepared is not None:
            from ctscribe.show.dicom_sr import dicom_documents

            assert source is not None  # `read_source` refuses what has no images
            for name, content in dicom_documents(draft, report, source).items():
                with atomic_write(out_dir / name) as file:
                    file.write(content)
                written.append(out_dir / name)
        return written


NO_OUTPUTS = HospitalOutputs()
