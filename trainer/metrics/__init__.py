"""Quality of predictions: additive meters for running jobs, exact figures over written columns."""
