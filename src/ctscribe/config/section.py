"""What every group of knobs has in common."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Millimetres = Annotated[float, Field(gt=0, le=20)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A group of knobs; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)
