"""Child processes: started, watched, ended for certain, with an environment that carries no secret."""
