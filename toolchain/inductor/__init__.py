"""The parts of the backend `inductor`: annotation, compilation under an ISA floor, and the run."""
