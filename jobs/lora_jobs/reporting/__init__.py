"""The report of a judged run: one document as JSON for machines and as HTML for people."""
