"""How people are told: one file a sink, each sends one notice once; when and what is decided in the engine."""
