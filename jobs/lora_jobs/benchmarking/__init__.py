"""Speed and memory in the engine that will serve, measured by a client of our own."""
