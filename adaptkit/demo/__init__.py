"""Show a study on a web page: people try its models and see what was measured."""
