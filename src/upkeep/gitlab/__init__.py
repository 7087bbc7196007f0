"""What CI jobs call, and the only room that asks GitLab's API."""
