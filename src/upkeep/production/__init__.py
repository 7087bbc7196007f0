"""What came back: how predictions turned out, estimates before that is known, and the health of the sources."""
