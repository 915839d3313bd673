"""The data plane: `pipeline` is a request's whole way on one page; the other modules are its steps."""
