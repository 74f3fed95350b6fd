"""Many ranks and teachers: sizes by formula, the stream on a virtual clock, and real runs beside it."""
