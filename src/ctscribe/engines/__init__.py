"""Where volumes are worked on: this machine's cores, a Ray cluster, or Slurm jobs."""
