//! A set of pictures as the numbers that distances between sets are made of.

use super::MetricsError;

/// Features of pictures, one row per picture, for example of [`Inception`](crate::nets::Inception).
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    width: usize,
    values: Vec<f32>,
}

impl Features {
    /// Features `[pictures, width]`, row by row.
    ///
    /// # Panics
    ///
    /// When `width` is zero or the values do not make whole rows.
    pub fn new(width: usize, values: Vec<f32>) -> Self {
        assert!(
            width > 0 && values.len().is_multiple_of(width),
            "{} values in rows of {width}",
            values.len()
        );
        Self { width, values }
    }

    /// Number of pictures.
    pub fn count(&self) -> usize {
        self.values.len() / self.width
    }

    /// Features of a picture.
    pub fn width(&self) -> usize {
        self.width
    }

    /// All values, `[pictures, width]`.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The features of each picture.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.values.chunks_exact(self.width)
    }

    /// Appends the pictures of another set.
    ///
    /// # Errors
    ///
    /// [`MetricsError::FeatureMismatch`].
    pub fn extend(&mut self, other: &Self) -> Result<(), MetricsError> {
        self.check_width(other)?;
        self.values.extend_from_slice(&other.values);
        Ok(())
    }

    /// The features as 64-bit numbers, those of the pictures `indices`.
    pub(super) fn wide(&self, indices: impl IntoIterator<Item = usize>) -> Vec<f64> {
        let row = |index: usize| &self.values[index * self.width..][..self.width];
        indices.into_iter().flat_map(row).map(|&value| f64::from(value)).collect()
    }

    fn check_width(&self, other: &Self) -> Result<(), MetricsError> {
        match self.width == other.width {
            true => Ok(()),
            false => Err(MetricsError::FeatureMismatch { left: self.width, right: other.width }),
        }
    }

    /// Checks that this many pictures are there and that all features are numbers.
    pub(super) fn check(&self, needed: usize) -> Result<(), MetricsError> {
        if self.count() < needed {
            return Err(MetricsError::TooFewPictures { found: self.count(), needed });
        }
        match self.values.iter().all(|value| value.is_finite()) {
            true => Ok(()),
            false => Err(MetricsError::NotFinite),
        }
    }

    /// [`check`](Self::check) of two sets that are to be compared.
    pub(super) fn check_pair(real: &Self, made: &Self, needed: usize) -> Result<(), MetricsError> {
        real.check_width(made)?;
        real.check(needed)?;
        made.check(needed)
    }
}
