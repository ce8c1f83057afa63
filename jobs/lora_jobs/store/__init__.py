"""The bucket: an action cache and a content-addressed store behind one small interface.

interface    `ObjectStore`, what every backend can do
directory    a folder as the store: local runs and tests
s3           any S3-compatible endpoint; `transfers` moves its files, `resuming` goes on after a cut
patient      outlasts outages of minutes
opening      URI and connection -> backend
artifacts    folders as immutable, content-addressed artifacts
actions      what finished stages produced, by the hash of what went in
documents    JSON that is written once
"""
