"""Results as files for other programs: tables, labels for audio editors, and clips of cough events."""
