"""What is answered: formats, subtitles, languages, and how they go out."""
