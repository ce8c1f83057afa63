"""Says that the virtual environment works: what the sample image runs."""

import idna

print("hello from", idna.encode("bücher.example").decode())
