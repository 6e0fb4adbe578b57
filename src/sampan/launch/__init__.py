"""Launching a training elsewhere: a readable script or manifest for a machine, a queue, a cloud or a cluster."""
