"""Pictures and captions: reading, examining, caching and encoding them."""
