"""From a picture set to weights, stage after stage."""
