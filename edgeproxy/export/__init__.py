"""Export: spans as OTLP, the queue they wait in, and where they go. Each exporter works on threads of its own."""
