"""What a run needs before it begins: its folder, dataset, roles, exam and laws."""
