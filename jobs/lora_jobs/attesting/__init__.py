"""Signed statements of releases: what one was made of, who says so, and whether that is true.

line, pins, manifest -> statement (in-toto, SLSA) -> DSSE envelope -> store -> checked again
"""
