"""All concepts the labeler reads.

Written for lower-case English as CT-RATE has it, which was translated from Turkish: "natural"
means normal, "CTO" is the cardiothoracic ratio, "sequela" is a scar, "icy" is ground glass.
What counts follows CT-RATE's labels: any described lymph node is Lymphadenopathy, a mass or a
nodular density alone is no Lung nodule, a linear density is Lung opacity but infiltration alone is
not, an air cyst is no Emphysema, a bronchial wall alone is not peribronchial.
"""

from ctscribe.reports.concept import Concept
from ctscribe.reports.lexicon_lungs import LUNGS
from ctscribe.reports.lexicon_mediastinum import MEDIASTINUM

CONCEPTS: tuple[Concept, ...] = (*MEDIASTINUM, *LUNGS)
"""In no particular order; a sentence may match several."""
