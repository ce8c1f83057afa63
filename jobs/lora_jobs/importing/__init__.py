"""Results of other load tools as rows of ours. Pure but for reading files."""
