"""The rebuild proof as a job."""
