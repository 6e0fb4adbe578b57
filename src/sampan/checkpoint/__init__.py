"""Models and runs on disk: the released folder layout, read, written and looked into; checkpoints of a training."""
