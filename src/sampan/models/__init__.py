"""The mathematics of GLM-Image-class models, written once over the framework interface."""
