"""What is known of jobs, from the broker and from the database."""
