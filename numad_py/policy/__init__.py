"""TOML files -> one frozen Policy."""
