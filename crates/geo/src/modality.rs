//! modality.
