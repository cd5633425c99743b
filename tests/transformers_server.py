"""`transformers serve` on a machine whose torchvision may be built for another torch.

PyPI's torchvision needs CUDA's torch for its compiled parts. Beside the CPU's torch two operators
are declared so that it can be imported, and Pillow decodes pictures in its place; the server and
the model's processor are the library's own.
"""

import io
from importlib import import_module

import numpy as np
import torch
from PIL import Image
from torch import Tensor

_OPERATORS = "nms", "qnms"
_ARGUMENTS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def decode_image(data: Tensor, **_: object) -> Tensor:
    """As torchvision's: encoded bytes → uint8 (3, height, width)."""
    with Image.open(io.BytesIO(data.numpy().tobytes())) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def put_up_with_torchvision() -> torch.library.Library:
    """Lets torchvision be imported for as long as what is returned is kept."""
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    if torch.version.cuda is None:
        for name in _OPERATORS:
            library.define(name + _ARGUMENTS)  # type: ignore[no-untyped-call]
        vars(import_module("torchvision.io"))["decode_image"] = decode_image
    return library


def main() -> None:
    """Serves as the command line says."""
    _kept = put_up_with_torchvision()
    import_module("transformers.cli.transformers").main()


if __name__ == "__main__":
    main()
