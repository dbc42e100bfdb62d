"""The streams beside the restored one: copied, converted, or reported as lost."""
