"""The contract between producer and worker. Importing this package imports no other module."""
