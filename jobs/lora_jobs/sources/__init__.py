"""Where models and data sets come from: `s3://`, `hf://`, `pvc://`, and `file://` in local runs.

pins             what a source was resolved to: a file list and its digest
selection        which of its files are useful and safe
place            the interface of a source, and how a URI becomes one
stored, hub      its backends
readable         cheap proofs that a data set has records
compatibility    cheap proofs that an adapter belongs to a base
fetching         the pinned files as a local folder
"""
