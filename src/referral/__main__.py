"""`python -m referral` is the `referral` command."""

from referral.cli import main

if __name__ == "__main__":
    main()
