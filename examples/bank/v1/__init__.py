"""The bank's wire contract. The modules here are generated from its .proto files by `make proto`."""
