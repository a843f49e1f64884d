//! Associations and the capture folder become durable objects.
