"""What every node shares; knows no node. Pure modules: clock, ids, backoff, ledger, errors."""
