"""How sure a measured ratio is: 95 % intervals over documents and over blocks. Pure.

Intervals are computed here, once, by the stage that measured, and travel as decimal strings in its
measurements (`rows`); whoever judges compares bounds and computes none.
"""
