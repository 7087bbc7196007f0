"""What CI jobs call; nobody below knows GitLab."""
