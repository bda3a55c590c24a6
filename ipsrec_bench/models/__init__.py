"""Sequential recommenders: the model interface, the settings, and one file per model."""
