"""A real Kubernetes and a real S3 server on one Linux machine, for tests and the demo.

Purpose: everything the operator talks to, without a container engine, a registry or the internet
beyond the package registries. Three things are offered:

- `localcluster.controlplane.ControlPlane`: etcd and kube-apiserver as an ordinary user, in seconds;
- `localcluster.s3.S3Server`: an S3 server on 127.0.0.1;
- `python3 tests/cluster/localcluster_cli.py up`: a whole node with pods, DNS and S3, as root.

Trap: standard library only. It is run by the system's python3 while the project's own
virtual environment may not exist yet.
"""
