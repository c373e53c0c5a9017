"""How good the answers are: labels, figures over ranked answers, their curve, and a linear probe."""
