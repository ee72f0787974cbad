//! Frozen and adversarial networks.
