"""What a training step of generator and decoder needs on TensorFlow, for the comparison of frameworks."""
