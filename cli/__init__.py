"""`agentcom`: a gRPC client and nothing more."""
