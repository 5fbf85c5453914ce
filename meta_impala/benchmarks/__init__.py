"""What each part costs on a machine."""
