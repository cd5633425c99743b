"""The application, and the options several commands share."""

import os
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number

from ctscribe.base.about import RESEARCH_USE, __version__
from ctscribe.base.errors import CtscribeError

if TYPE_CHECKING:
    from ctscribe.base.recipe import Recipe
    from ctscribe.show.hospital_outputs import HospitalOutputs
    from ctscribe.write.served import Served

app = App(
    name="ctscribe",
    version=__version__,
    help=f"Chest-CT report writers that look at the scan. {RESEARCH_USE}",
    default_parameter=Parameter(negative=""),
    suppress_keyboard_interrupt=False,  # `cli.app` says what it means
)

app.register_install_completion_command(
    help="Teach the shell that this runs in to complete ctscribe's commands and options."
)

RecipeName = Annotated[
    str | None, Parameter(name="--recipe", help="A YAML file or a shipped name; must be given.")
]
"""Of own data; what it is None for is refused by `read_knobs`, with the names."""
PhantomRecipeName = Annotated[
    str, Parameter(name="--recipe", help="A YAML file or a shipped name.")
]
ScoringRecipeName = Annotated[
    str | None,
    Parameter(
        name="--recipe",
        help="A YAML file or a shipped name; else that of the run whose folder the reports lie "
        "in, else every knob of scoring as `ctscribe evaluate` says.",
    ),
]
Overrides = Annotated[
    tuple[str, ...],
    Parameter(name="--set", help="section.key=value; may be repeated.", negative=""),
]
Start = Annotated[
    str | None,
    Parameter(help="Starting checkpoint: a warm-up's folder, a published model's, or a hub id."),
]
Processes = Annotated[int, Parameter(help="Worker processes.")]
EngineName = Annotated[
    Literal["local", "ray", "slurm"],
    Parameter(help="This machine, a running Ray cluster, or Slurm jobs."),
]
EngineProcesses = Annotated[
    int | None,
    Parameter(
        name="--processes",
        help="Volumes at once; by default one per core here, or all that the cluster gives.",
    ),
]
Prefer = Annotated[
    Literal["sform", "qform"] | None,
    Parameter(help="Which affine to believe where a NIfTI file has two that disagree."),
]
Series = Annotated[
    str | None,
    Parameter(
        help="Number or SeriesInstanceUID of the series to read of a DICOM folder; 4:2 is the "
        "second acquisition of series 4."
    ),
]
Reconstructions = Annotated[
    Literal["one", "all"], Parameter(help="One reconstruction per scan, or all of them.")
]
AllowOutside = Annotated[
    bool, Parameter(help="Let the list of scans or masks name files outside its folder.")
]
Where = Annotated[
    Path | None,
    Parameter(
        help="Boxes or masks of lesions: a phantom's truth.jsonl, a table or manifest that names "
        "masks, or a folder of NIfTI masks."
    ),
]
Cues = Annotated[
    Path | None,
    Parameter(
        help="CSV of VolumeName and 18 probabilities that tells the findings, for a run with "
        "model.cues; from 0.5 on, or as the operating point says."
    ),
]
OperatingPoint = Annotated[
    str | None,
    Parameter(help="f1, or coverage=0.8 or precision=0.8 as reached on validation."),
]
AsJson = Annotated[bool, Parameter(name="--json", help="Print JSON, for programs.")]
WithVolume = Annotated[
    bool,
    Parameter(
        negative="--without-volume",
        help="Whether the page carries the scan; without it the page has no images, for mail.",
    ),
]
CORES = os.cpu_count() or 1


@Parameter(name="*")
@dataclass(frozen=True)
class Documents:
    """Documents for a hospital's archive and record, beside a draft's own files."""

    dicom_sr: Annotated[
        bool,
        Parameter(help="Also write DICOM Structured Reports: the text, and what it measures."),
    ] = False
    fhir: Annotated[bool, Parameter(help="Also write a FHIR DiagnosticReport.")] = False
    fhir_release: Annotated[
        Literal["R5", "R4B"] | None, Parameter(help="Of FHIR; R5 where it is not given.")
    ] = None
    with_identity: Annotated[
        bool,
        Parameter(
            help="Name the patient and the source's images in DICOM SR and FHIR, as the DICOM "
            "headers do; else both go by new names."
        ),
    ] = False

    def outputs(self) -> "HospitalOutputs":
        """What is to be written.

        Raises:
            CtscribeError: ``E_OPTION`` for options that would do nothing, ``E_DICOM_SR`` without
                highdicom.
        """
        from ctscribe.show.hospital_outputs import HospitalOutputs

        if self.fhir_release is not None and not self.fhir:
            raise CtscribeError(
                "E_OPTION", "--fhir-release must go with --fhir, but that is not given"
            )
        if self.with_identity and not (self.dicom_sr or self.fhir):
            raise CtscribeError(
                "E_OPTION",
                "--with-identity must go with --dicom-sr or --fhir, because no other output ever "
                "names a patient, but neither is asked for",
            )
        if self.dicom_sr and find_spec("highdicom") is None:
            raise CtscribeError(
                "E_DICOM_SR", "highdicom must be installed for --dicom-sr, but it is not"
            )
        release = (self.fhir_release or "R5") if self.fhir else None
        return HospitalOutputs(self.dicom_sr, release, self.with_identity)


NO_DOCUMENTS = Documents()


@Parameter(name="*")
@dataclass(frozen=True)
class ServerOptions:
    """What writes reports where it is not the run itself."""

    engine: Annotated[
        Literal["local", "ray", "openai"],
        Parameter(
            help="The run itself, here or on a running Ray cluster, or a server that answers "
            "OpenAI's chat completions, such as vLLM, SGLang or transformers serve with an "
            "exported run."
        ),
    ] = "local"
    endpoint: Annotated[
        str | None, Parameter(help="Of the server, such as http://127.0.0.1:8000/v1.")
    ] = None
    model: Annotated[
        str | None, Parameter(help="As the server calls it; by default its only one.")
    ] = None
    send_as: Annotated[
        Literal["images", "video"],
        Parameter(
            help="images: PNG, for any server; video: JPEG frames as one video, as runs are "
            "trained, for vLLM."
        ),
    ] = "images"
    parallel: Annotated[
        int, Parameter(help="Scans asked about at once.", validator=Number(gt=0, lte=256))
    ] = 4
    timeout_s: Annotated[
        float, Parameter(help="Longest wait for one report.", validator=Number(gt=0))
    ] = 600.0
    allow_remote: Annotated[
        bool, Parameter(help="Let frames leave this machine, for an endpoint on another.")
    ] = False

    def require_use(self) -> None:
        """Refuses options that would do nothing.

        Raises:
            CtscribeError: ``E_OPTION``.
        """
        if self.engine == "openai" and self.endpoint is None:
            raise CtscribeError(
                "E_OPTION", "--engine openai must be told its server by --endpoint, but is not"
            )
        if self.engine != "openai" and replace(self, engine="local") != NO_SERVER:
            raise CtscribeError(
                "E_OPTION",
                "--endpoint and what goes with it must go with --engine openai, but that is not "
                "given",
            )

    def served(self) -> "Served":
        """The server's model.

        Raises:
            CtscribeError: ``E_OPTION``, ``E_REMOTE``, ``E_ENDPOINT``.
        """
        from ctscribe.write.endpoint import Endpoint
        from ctscribe.write.served import Served

        endpoint = Endpoint(self.endpoint or "", self.timeout_s, self.allow_remote)
        model = self.model or endpoint.only_model()
        return Served(endpoint, model, self.send_as, self.parallel)


NO_SERVER = ServerOptions()


def read_knobs(recipe: str | None, overrides: tuple[str, ...]) -> "Recipe":
    """Reads a recipe with its overrides, imported late so that ``--help`` comes at once.

    Raises:
        CtscribeError: ``E_RECIPE``, also where none is given.
    """
    from ctscribe.base.recipe import read_recipe

    return read_recipe(recipe, overrides)
