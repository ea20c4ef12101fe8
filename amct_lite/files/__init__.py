"""Formats on disk: config, target, record, statistics, journal; every file appears whole or not at all."""
