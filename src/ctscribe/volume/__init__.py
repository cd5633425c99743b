"""Files → CTVolume(hu, affine): NIfTI, DICOM, intensity, resampling, stores."""
