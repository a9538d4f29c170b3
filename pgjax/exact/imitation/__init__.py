"""What imitation costs, exactly, and the two problems in which its bounds are met."""
