"""From a prompt and reference pictures to a PNG."""
