"""One scan: files → ``CTVolume(hu, affine)``, RAS+ in mm → the frames a model sees.

In: a NIfTI file, or the folder or zip of a DICOM series. Out: Hounsfield units with their
geometry, resampled on request, and uint8 frames. LPS ends in `dicom`, axes change in `frames`
only. Knows nothing of reports. Begin with `read`, then `frames`.
"""
