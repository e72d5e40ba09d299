"""GATEWAY: the HTTP door to Headstream, and what its dashboard is drawn from. It holds no state of its own."""
