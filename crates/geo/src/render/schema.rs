//! Which layers and attributes of vector tiles mean which [`Class`].
//!
//! One table for the schemas in use: OpenMapTiles, and Protomaps from its version 3 on (`kind`, `kind_detail`). Earlier
//! Protomaps tiles carry the tags of OpenStreetMap, as many home-made ones do; they go by the table of tags.

use super::class::{Class, Level};
use super::tags::{self, Kind};

/// Layers, key, values, kind, class. Of several rows that fit a feature the first counts. `*` is any value, and an
/// empty key fits every feature of the layer.
type Row = (&'static [&'static str], &'static str, &'static [&'static str], Kind, Class);

const ROADS: &[&str] = &["roads", "transportation"];
const RAILS: &[&str] = &["roads", "transit", "transportation"];
const GROUND: &[&str] = &["landuse", "landcover", "natural", "park"];

const TABLE: &[Row] = &[
    (&["buildings", "building"], "", &[], Kind::Area, Class::Building),
    (&["water"], "", &[], Kind::Area, Class::Water),
    // Ramps come before their roads.
    (ROADS, "kind_detail", &["motorway_link", "trunk_link"], Kind::Line, Class::MotorwayLink),
    (ROADS, "kind_detail", &["motorway", "trunk"], Kind::Line, Class::Motorway),
    (ROADS, "kind_detail", &["primary", "primary_link"], Kind::Line, Class::Primary),
    (ROADS, "kind_detail", &["secondary", "secondary_link"], Kind::Line, Class::Secondary),
    (ROADS, "kind_detail", &["tertiary", "tertiary_link"], Kind::Line, Class::Tertiary),
    (
        ROADS,
        "kind_detail",
        &["residential", "unclassified", "living_street", "road"],
        Kind::Line,
        Class::Minor,
    ),
    (ROADS, "kind_detail", &["service"], Kind::Line, Class::Service),
    (ROADS, "kind_detail", &["pedestrian"], Kind::Line, Class::Pedestrian),
    (ROADS, "kind_detail", &["track"], Kind::Line, Class::Track),
    (ROADS, "kind_detail", &["footway", "path", "cycleway", "steps", "bridleway"], Kind::Line, Class::Path),
    (RAILS, "kind_detail", &["tram", "monorail"], Kind::Line, Class::MinorRail),
    (RAILS, "kind_detail", &["rail", "narrow_gauge", "light_rail", "funicular"], Kind::Line, Class::Rail),
    (ROADS, "subclass", &["pedestrian"], Kind::Line, Class::Pedestrian),
    (ROADS, "subclass", &["tram", "monorail"], Kind::Line, Class::MinorRail),
    (ROADS, "subclass", &["subway"], Kind::Line, Class::MinorRail),
    (ROADS, "class", &["motorway", "trunk"], Kind::Line, Class::Motorway),
    (ROADS, "class", &["primary"], Kind::Line, Class::Primary),
    (ROADS, "class", &["secondary"], Kind::Line, Class::Secondary),
    (ROADS, "class", &["tertiary"], Kind::Line, Class::Tertiary),
    (ROADS, "class", &["minor", "busway"], Kind::Line, Class::Minor),
    (ROADS, "class", &["service"], Kind::Line, Class::Service),
    (ROADS, "class", &["track"], Kind::Line, Class::Track),
    (ROADS, "class", &["path"], Kind::Line, Class::Path),
    (ROADS, "class", &["rail"], Kind::Line, Class::Rail),
    (ROADS, "class", &["transit"], Kind::Line, Class::MinorRail),
    (ROADS, "class", &["path"], Kind::Area, Class::Square),
    (&["waterway", "water"], "class", &["river", "canal"], Kind::Line, Class::River),
    (&["waterway", "water"], "class", &["stream", "ditch", "drain"], Kind::Line, Class::Stream),
    (&["water", "physical_line"], "kind", &["river", "canal"], Kind::Line, Class::River),
    (&["water", "physical_line"], "kind", &["stream", "ditch", "drain"], Kind::Line, Class::Stream),
    (&["aeroway"], "class", &["runway"], Kind::Area, Class::Runway),
    (&["aeroway"], "class", &["taxiway", "apron"], Kind::Area, Class::Taxiway),
    (&["aeroway"], "class", &["aerodrome"], Kind::Area, Class::Airport),
    (&["aeroway"], "class", &["runway"], Kind::Line, Class::Runway),
    (&["aeroway"], "class", &["taxiway"], Kind::Line, Class::Taxiway),
    (RAILS, "kind", &["runway"], Kind::Line, Class::Runway),
    (RAILS, "kind", &["taxiway"], Kind::Line, Class::Taxiway),
    (GROUND, "kind", &["runway"], Kind::Area, Class::Runway),
    (GROUND, "kind", &["taxiway", "apron"], Kind::Area, Class::Taxiway),
    (GROUND, "kind", &["aerodrome"], Kind::Area, Class::Airport),
    (GROUND, "kind", &["pedestrian", "square"], Kind::Area, Class::Square),
    (
        GROUND,
        "kind",
        &["park", "garden", "golf_course", "playground", "recreation_ground"],
        Kind::Area,
        Class::Park,
    ),
    (GROUND, "kind", &["dog_park", "allotments", "zoo"], Kind::Area, Class::Park),
    (GROUND, "kind", &["wood", "forest"], Kind::Area, Class::Wood),
    (GROUND, "kind", &["grass", "grassland", "meadow", "scrub", "village_green"], Kind::Area, Class::Grass),
    (GROUND, "kind", &["wetland"], Kind::Area, Class::Wetland),
    (GROUND, "kind", &["sand", "beach", "bare_rock", "barren"], Kind::Area, Class::Sand),
    (GROUND, "kind", &["glacier"], Kind::Area, Class::Ice),
    (GROUND, "kind", &["pitch"], Kind::Area, Class::Pitch),
    (GROUND, "kind", &["cemetery"], Kind::Area, Class::Cemetery),
    (GROUND, "kind", &["hospital"], Kind::Area, Class::Hospital),
    (GROUND, "kind", &["school", "university", "college", "kindergarten"], Kind::Area, Class::School),
    (GROUND, "kind", &["farmland", "orchard", "vineyard"], Kind::Area, Class::Farmland),
    (GROUND, "kind", &["industrial", "railway", "military"], Kind::Area, Class::Industrial),
    (GROUND, "kind", &["commercial", "retail"], Kind::Area, Class::Commercial),
    (GROUND, "kind", &["residential", "urban_area"], Kind::Area, Class::Residential),
    (&["landcover"], "class", &["grass"], Kind::Area, Class::Grass),
    (&["landcover"], "class", &["wood"], Kind::Area, Class::Wood),
    (&["landcover"], "class", &["farmland"], Kind::Area, Class::Farmland),
    (&["landcover"], "class", &["sand", "rock"], Kind::Area, Class::Sand),
    (&["landcover"], "class", &["ice"], Kind::Area, Class::Ice),
    (&["landcover"], "class", &["wetland"], Kind::Area, Class::Wetland),
    (&["landuse"], "class", &["pitch", "track"], Kind::Area, Class::Pitch),
    (&["landuse"], "class", &["cemetery"], Kind::Area, Class::Cemetery),
    (&["landuse"], "class", &["hospital"], Kind::Area, Class::Hospital),
    (&["landuse"], "class", &["school", "university", "college", "kindergarten"], Kind::Area, Class::School),
    (&["landuse"], "class", &["industrial", "railway", "military", "quarry"], Kind::Area, Class::Industrial),
    (&["landuse"], "class", &["commercial", "retail"], Kind::Area, Class::Commercial),
    (&["landuse"], "class", &["residential", "suburb", "neighbourhood"], Kind::Area, Class::Residential),
    (&["landuse"], "class", &["playground", "theme_park", "zoo"], Kind::Area, Class::Park),
];

/// Layers whose features carry the tags of OpenStreetMap where no row of the table fits.
const TAGGED: &[&str] =
    &["roads", "transit", "landuse", "land", "natural", "water", "physical_line", "landcover", "waterway"];

/// What one layer of a vector tile can hold: the rows of the table that are about it.
pub(super) struct Schema {
    rows: Vec<&'static Row>,
    is_tagged: bool,
}

impl Schema {
    /// What a layer of this name can hold; none when nothing of it is drawn.
    pub(super) fn of_layer(name: &str) -> Option<Self> {
        let rows: Vec<_> = TABLE.iter().filter(|(layers, ..)| layers.contains(&name)).collect();
        let is_tagged = TAGGED.contains(&name);
        (is_tagged || !rows.is_empty()).then_some(Self { rows, is_tagged })
    }

    /// The class and level of a feature.
    pub(super) fn class(&self, attributes: &[(&str, &str)], kind: Kind) -> Option<(Class, Level)> {
        let level = tags::level(attributes.iter().copied());
        let fits = |(_, key, values, of, _): &&&Row| {
            let has = |attribute: &(&str, &str)| attribute.0 == *key && values.contains(&attribute.1);
            *of == kind && (key.is_empty() || attributes.iter().any(has))
        };
        let class = match self.rows.iter().find(fits) {
            Some((.., class)) => *class,
            None if self.is_tagged => tags::class(attributes.iter().copied(), kind)?,
            None => return None,
        };
        let is_ramp = attributes
            .iter()
            .any(|(key, value)| matches!((*key, *value), ("ramp", "1" | "yes") | ("is_link", "yes" | "1")));
        let class = if is_ramp && class == Class::Motorway { Class::MotorwayLink } else { class };
        let is_hidden = level == Level::Tunnel && matches!(class, Class::River | Class::Stream);
        (!is_hidden).then_some((class, level))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(layer: &str, attributes: &[(&str, &str)], kind: Kind) -> Option<(Class, Level)> {
        Schema::of_layer(layer)?.class(attributes, kind)
    }

    #[test]
    fn openmaptiles() {
        let motorway = [("class", "motorway"), ("brunnel", "bridge")];
        assert_eq!(class("transportation", &motorway, Kind::Line), Some((Class::Motorway, Level::Bridge)));
        let ramp = [("class", "trunk"), ("ramp", "1")];
        assert_eq!(class("transportation", &ramp, Kind::Line), Some((Class::MotorwayLink, Level::Ground)));
        let tram = [("class", "transit"), ("subclass", "tram")];
        assert_eq!(class("transportation", &tram, Kind::Line), Some((Class::MinorRail, Level::Ground)));
        assert_eq!(class("water", &[("class", "ocean")], Kind::Area), Some((Class::Water, Level::Ground)));
        assert_eq!(class("landcover", &[("class", "wood")], Kind::Area), Some((Class::Wood, Level::Ground)));
        let pipe = [("class", "stream"), ("brunnel", "tunnel")];
        assert_eq!(class("waterway", &pipe, Kind::Line), None);
        assert_eq!(class("place", &[("class", "city")], Kind::Area), None);
    }

    #[test]
    fn protomaps_old_and_new() {
        let old = [("pmap:kind", "major_road"), ("highway", "secondary"), ("tunnel", "yes")];
        assert_eq!(class("roads", &old, Kind::Line), Some((Class::Secondary, Level::Tunnel)));
        let new = [("kind", "major_road"), ("kind_detail", "secondary"), ("is_tunnel", "yes")];
        assert_eq!(class("roads", &new, Kind::Line), Some((Class::Secondary, Level::Tunnel)));
        assert_eq!(class("buildings", &[], Kind::Area), Some((Class::Building, Level::Ground)));
        assert_eq!(class("landuse", &[("kind", "park")], Kind::Area), Some((Class::Park, Level::Ground)));
        let orchard = [("pmap:kind", "farmland"), ("landuse", "orchard")];
        assert_eq!(class("landuse", &orchard, Kind::Area), Some((Class::Farmland, Level::Ground)));
        assert_eq!(class("earth", &[], Kind::Area), None);
        assert_eq!(class("mask", &[], Kind::Area), None);
    }
}
