"""What the operator creates, as JSON: pure builders, equal input gives equal documents.

Pods meet the Pod Security level `restricted`, hold no Kubernetes credentials, and get their secrets
as files that may be missing, so that a missing Secret is a typed reason and not a hanging pod.
"""
