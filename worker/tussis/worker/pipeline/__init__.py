"""The processing of one message in a child process, from the Celery task to the committed result."""
