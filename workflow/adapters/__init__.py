"""The embedded sets of adapters, `memory` and `sqlite`, and `support`, what every adapter needs."""
