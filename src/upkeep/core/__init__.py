"""What every room stands on: parameters, paths, errors, files, secrets and parallel work."""
