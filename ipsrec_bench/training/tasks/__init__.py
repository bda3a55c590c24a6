"""What models are trained for; one file for each task, which turns a batch into one loss."""
