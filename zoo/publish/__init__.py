"""From a run to a folder that the Hugging Face Hub shows well."""
