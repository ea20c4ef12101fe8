"""The built-in targets, one JSON file each."""
