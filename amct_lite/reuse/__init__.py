"""What one candidate of a search has in common with those before it: open sessions of segments, and their outputs."""
