"""The sidecar: it runs beside an agent, holds a session with the hub, and does what it is given."""
