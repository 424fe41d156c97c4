"""One message's way, in a child process: from the Celery task to the committed result."""
