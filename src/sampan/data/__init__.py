"""Pictures and captions: reading them, and writing the emoji set to begin with."""
