"""Pictures over HTTP: the images API that clients already speak, a page, and what keeps both safe."""
