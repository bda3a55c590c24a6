"""Sequential recommenders: their contract, their settings, one file each."""
