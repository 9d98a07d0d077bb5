"""The chaos lab: what each failure does to a real two-phase commit stack, shown with numbers."""
