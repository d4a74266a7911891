"""What each stage of a study does, one file per kind of job."""
