"""The product's own code, run on virtual time with everything around it simulated: ``python -m tests.simulation``."""
