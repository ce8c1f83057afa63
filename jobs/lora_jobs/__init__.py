"""The stage programs: resolve, merge, quantize, evaluate, benchmark, report, publish, verify.

They hold no Kubernetes credentials and know nothing of the cluster: a request comes in as JSON,
files come from and go to the store, a result goes out as JSON. The same programs run by hand, as
Jobs and in the local run.
"""
