"""What people see: console, model card, lineage."""
