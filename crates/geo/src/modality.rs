//! The two kinds of picture that EarthMapper translates between.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Which side of a pair a picture is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Modality {
    /// A photograph from above.
    Satellite,
    /// A drawn map of the same ground.
    Map,
}

impl Modality {
    /// Both modalities in the order of their [`index`](Self::index).
    pub const ALL: [Self; 2] = [Self::Satellite, Self::Map];

    /// The modality at the other end of a translation.
    pub fn other(self) -> Self {
        match self {
            Self::Satellite => Self::Map,
            Self::Map => Self::Satellite,
        }
    }

    /// Position in [`ALL`](Self::ALL): satellite 0, map 1. Model files depend on these numbers.
    pub fn index(self) -> usize {
        match self {
            Self::Satellite => 0,
            Self::Map => 1,
        }
    }

    /// The name used in flags and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Satellite => "satellite",
            Self::Map => "map",
        }
    }
}

impl fmt::Display for Modality {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// A name that is no modality.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{0:?} is not a modality; use satellite or map")]
pub struct UnknownModality(pub String);

impl FromStr for Modality {
    type Err = UnknownModality;

    fn from_str(name: &str) -> Result<Self, UnknownModality> {
        let found = Self::ALL.into_iter().find(|modality| modality.name().eq_ignore_ascii_case(name));
        found.ok_or_else(|| UnknownModality(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for (index, modality) in Modality::ALL.into_iter().enumerate() {
            assert_eq!(modality.index(), index);
            assert_eq!(modality.other().other(), modality);
            assert_ne!(modality.other(), modality);
            assert_eq!(modality.to_string().parse(), Ok(modality));
            let json = serde_json::to_string(&modality).unwrap();
            assert_eq!(json, format!("\"{modality}\""));
            assert_eq!(serde_json::from_str::<Modality>(&json).unwrap(), modality);
        }
        assert_eq!("Satellite".parse(), Ok(Modality::Satellite));
        let error = "radar".parse::<Modality>().unwrap_err();
        assert_eq!(error.to_string(), "\"radar\" is not a modality; use satellite or map");
    }
}
