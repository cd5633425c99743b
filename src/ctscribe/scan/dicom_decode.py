"""Decompresses DICOM slices in a process of its own, started by `ctscribe.scan.dicom_decoder`.

Decoders are native code that has met few hostile files; here such a file can cost no more than
the memory and time that the process may use, and can write no file. Requests come on standard
input, answers go to standard output; both are plain bytes, nothing is unpickled.
"""

import resource
import struct
import sys
import time
import warnings
from io import BytesIO
from typing import BinaryIO

MEMORY_BYTES = 3 << 30
FRAME_CPU_S = 8
"""Far more than the largest slice takes; of CPU time, so that a busy machine changes nothing."""
REQUEST = struct.Struct("<QI")
"""Bytes of the file that follow, 0 for the file before; index of the frame."""
ANSWER = struct.Struct("<c3sII")
"""Y with type, rows and columns before the values; M for want of memory; N for damage."""


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answers requests until there are no more."""
    import pydicom
    from pydicom.pixels.utils import pixel_array

    warnings.simplefilter("ignore")
    image = None
    while header := requests.read(REQUEST.size):
        num_bytes, frame = REQUEST.unpack(header)
        until_s = int(time.process_time()) + FRAME_CPU_S
        resource.setrlimit(resource.RLIMIT_CPU, (until_s, resource.RLIM_INFINITY))
        try:
            if num_bytes:
                image = pydicom.dcmread(BytesIO(requests.read(num_bytes)))
            assert image is not None
            pixels = pixel_array(image, index=frame)
            rows, columns = pixels.shape
            kind = pixels.dtype.newbyteorder("<").str.encode()
            answers.write(ANSWER.pack(b"Y", kind, rows, columns))
            answers.write(pixels.astype(kind.decode(), copy=False).tobytes())
        except MemoryError:
            answers.write(ANSWER.pack(b"M", b"", 0, 0))
        except Exception:  # whatever a decoder raises, the file is at fault
            answers.write(ANSWER.pack(b"N", b"", 0, 0))
        answers.flush()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    serve(sys.stdin.buffer, sys.stdout.buffer)
