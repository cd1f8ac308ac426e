"""What is done about what was decided: what may be hidden now, who shares it, and the one who does it."""
