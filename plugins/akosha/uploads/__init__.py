"""From uploads in S3 to records in hot."""
