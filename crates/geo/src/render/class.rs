//! What a feature is: [`Class`], and whether it runs through a tunnel or over a bridge: [`Level`].

use std::fmt;

use serde::{Deserialize, Serialize};

/// What is drawn alike. Sources translate their own words into these, a style names them in lower case with hyphens.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Where people live.
    Residential,
    /// Shops and offices.
    Commercial,
    /// Factories, depots, ports, quarries.
    Industrial,
    /// The ground of schools and universities.
    School,
    /// The ground of hospitals.
    Hospital,
    /// The ground of airports.
    Airport,
    /// Places to leave cars.
    Parking,
    /// Squares for walking.
    Square,
    /// Fields, orchards and vineyards.
    Farmland,
    /// Graves.
    Cemetery,
    /// Beaches and bare sand or rock.
    Sand,
    /// Glaciers.
    Ice,
    /// Marshes.
    Wetland,
    /// Grass, meadows, scrub.
    Grass,
    /// Parks and gardens.
    Park,
    /// Forests.
    Wood,
    /// Fields and courts for sport.
    Pitch,
    /// Seas, lakes, and rivers wide enough to be areas.
    Water,
    /// Rivers and canals as lines.
    River,
    /// Streams and ditches as lines.
    Stream,
    /// Buildings.
    Building,
    /// Runways, as areas or lines.
    Runway,
    /// Taxiways, as areas or lines.
    Taxiway,
    /// Motorways and trunk roads.
    Motorway,
    /// Their ramps.
    MotorwayLink,
    /// Primary roads.
    Primary,
    /// Secondary roads.
    Secondary,
    /// Tertiary roads.
    Tertiary,
    /// Residential and unclassified roads.
    Minor,
    /// Drives and alleys.
    Service,
    /// Streets for walking.
    Pedestrian,
    /// Farm and forest tracks.
    Track,
    /// Footways, cycleways, steps.
    Path,
    /// Railways.
    Rail,
    /// Sidings, yards and tramways.
    MinorRail,
}

impl Class {
    /// All of them, in the order in which they are declared.
    pub const ALL: [Self; 35] = [
        Self::Residential,
        Self::Commercial,
        Self::Industrial,
        Self::School,
        Self::Hospital,
        Self::Airport,
        Self::Parking,
        Self::Square,
        Self::Farmland,
        Self::Cemetery,
        Self::Sand,
        Self::Ice,
        Self::Wetland,
        Self::Grass,
        Self::Park,
        Self::Wood,
        Self::Pitch,
        Self::Water,
        Self::River,
        Self::Stream,
        Self::Building,
        Self::Runway,
        Self::Taxiway,
        Self::Motorway,
        Self::MotorwayLink,
        Self::Primary,
        Self::Secondary,
        Self::Tertiary,
        Self::Minor,
        Self::Service,
        Self::Pedestrian,
        Self::Track,
        Self::Path,
        Self::Rail,
        Self::MinorRail,
    ];

    /// The name in styles and in the property `class` of GeoJSON, such as `motorway-link`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Residential => "residential",
            Self::Commercial => "commercial",
            Self::Industrial => "industrial",
            Self::School => "school",
            Self::Hospital => "hospital",
            Self::Airport => "airport",
            Self::Parking => "parking",
            Self::Square => "square",
            Self::Farmland => "farmland",
            Self::Cemetery => "cemetery",
            Self::Sand => "sand",
            Self::Ice => "ice",
            Self::Wetland => "wetland",
            Self::Grass => "grass",
            Self::Park => "park",
            Self::Wood => "wood",
            Self::Pitch => "pitch",
            Self::Water => "water",
            Self::River => "river",
            Self::Stream => "stream",
            Self::Building => "building",
            Self::Runway => "runway",
            Self::Taxiway => "taxiway",
            Self::Motorway => "motorway",
            Self::MotorwayLink => "motorway-link",
            Self::Primary => "primary",
            Self::Secondary => "secondary",
            Self::Tertiary => "tertiary",
            Self::Minor => "minor",
            Self::Service => "service",
            Self::Pedestrian => "pedestrian",
            Self::Track => "track",
            Self::Path => "path",
            Self::Rail => "rail",
            Self::MinorRail => "minor-rail",
        }
    }

    /// The class with a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Whether a way runs below, on or above the ground.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Level {
    /// In a tunnel.
    Tunnel,
    /// On the ground.
    #[default]
    Ground,
    /// On a bridge.
    Bridge,
}

impl Level {
    /// All of them, from below.
    pub const ALL: [Self; 3] = [Self::Tunnel, Self::Ground, Self::Bridge];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_styles() {
        for (index, class) in Class::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, index, "the list is in order");
            assert_eq!(Class::from_name(class.name()), Some(class));
            let named: Class = serde_json::from_str(&format!("{:?}", class.name())).unwrap();
            assert_eq!(named, class);
        }
        assert_eq!(Class::from_name("Motorway"), None);
    }
}
