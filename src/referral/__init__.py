"""A self-hosted referral system service."""
