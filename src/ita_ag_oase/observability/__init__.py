"""What the agent tells about itself."""
