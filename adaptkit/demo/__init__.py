"""The demo: a page on which people who decide try the models of a study and see what was found."""
