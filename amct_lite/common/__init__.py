"""AMCT's module paths, so that its scripts need only another import; nothing lives here."""
