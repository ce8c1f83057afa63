"""A laboratory for faults: the real operator process behind a proxy that can do anything to it.

    operator process -> Proxy (one a case, with its Fault) -> real API server
                            `-> Watchman: what must hold at every write
    LabKubelet: plays all pods of the API server, in step with what the operator has told

`Life` leads one object through one part of its life and says how it ended.
"""
