"""Libraries that are watched: one file for each, over shared steps in files with an underscore."""
