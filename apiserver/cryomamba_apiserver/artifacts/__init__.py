"""Results of jobs, downloaded by signed URL."""
