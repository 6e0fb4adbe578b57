"""From a model and random numbers to a sample: one pure loop a module, numbers drawn on the host."""
