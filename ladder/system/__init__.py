"""What the operating system gives: durable files, processes and signals."""
