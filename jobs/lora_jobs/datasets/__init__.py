"""Data sets: records from files, records as token ids, and proof that two sets are disjoint."""
