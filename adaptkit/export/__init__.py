"""Exports: trained models as folders that others load and serve, measured against what was trained."""
