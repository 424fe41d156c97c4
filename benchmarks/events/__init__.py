"""The measurement behind the rule of cough events: mixtures with known bouts, candidate rules, and their errors."""
