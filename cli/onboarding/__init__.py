"""An agent added to this machine, looked after and removed: `agentcom agent add`, `preflight`, `remove`."""
