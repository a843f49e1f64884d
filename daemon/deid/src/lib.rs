//! De-identified copies: PS3.15 Annex E, and an independent audit of the bytes that would leave.
