"""Turn results into text: tables for people, JSON and CSV for programs. One file for each kind of result."""
