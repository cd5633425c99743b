"""CTVolume → the frames the model sees; the only place where axes change."""
