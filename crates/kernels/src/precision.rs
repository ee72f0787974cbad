//! Which numbers layers work with.

use std::fmt;
use std::str::FromStr;

/// In what numbers a product is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// Weights in 8 bits with one scale per output, activations in 8 bits with one range per row, sums in 32 bits.
    Int8,
}

/// A name that is none of the precisions'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownPrecision(String);

impl fmt::Display for UnknownPrecision {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "precision {:?} is unknown; use f32 or int8", self.0)
    }
}

impl std::error::Error for UnknownPrecision {}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Int8 => "int8",
        })
    }
}

impl FromStr for Precision {
    type Err = UnknownPrecision;

    fn from_str(text: &str) -> Result<Self, UnknownPrecision> {
        match text {
            "f32" => Ok(Self::F32),
            "int8" => Ok(Self::Int8),
            _ => Err(UnknownPrecision(text.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for precision in [Precision::F32, Precision::Int8] {
            assert_eq!(precision.to_string().parse(), Ok(precision));
        }
        assert!("bf16".parse::<Precision>().unwrap_err().to_string().contains("int8"));
    }
}
