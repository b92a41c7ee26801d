"""A sensitive column by whether the target is right, and how sure."""
