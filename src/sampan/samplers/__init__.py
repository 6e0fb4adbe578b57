"""Samplers: one step from a model's answer to the next latent or token, as pure functions; numbers are drawn on the host."""
