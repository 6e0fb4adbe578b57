"""What training minimises: one pure function a module, over the framework interface."""
