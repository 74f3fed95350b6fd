"""Safe loading and saving of Hugging Face folders, content digests, adapters and the output head."""
