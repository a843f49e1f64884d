//! A finding becomes a structured report (TID 1500).
