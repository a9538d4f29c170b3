"""The exact cost of imitation, tables that imitate, and two problems in which the bounds are met."""
