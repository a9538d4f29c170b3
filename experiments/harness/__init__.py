"""What every experiment needs around it: its command line, its files, its progress, its figures, its verdicts."""
