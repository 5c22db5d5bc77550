"""The dashboard: pages over the hub's gRPC services. It holds no state and can be killed at any time."""
