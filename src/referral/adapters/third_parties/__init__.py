"""EmailHunter, Clearbit, and how third parties are asked."""
