//! Which tags of OpenStreetMap mean which [`Class`].

use std::collections::HashMap;
use std::sync::LazyLock;

use super::class::{Class, Level};

/// Whether a feature is a line or an area.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Kind {
    Line,
    Area,
}

/// Key, values, kind, class. Of several rows that fit a feature the first counts. `*` is any value but `no`.
const TABLE: &[(&str, &[&str], Kind, Class)] = &[
    ("highway", &["motorway", "trunk"], Kind::Line, Class::Motorway),
    ("highway", &["motorway_link", "trunk_link"], Kind::Line, Class::MotorwayLink),
    ("highway", &["primary", "primary_link"], Kind::Line, Class::Primary),
    ("highway", &["secondary", "secondary_link"], Kind::Line, Class::Secondary),
    ("highway", &["tertiary", "tertiary_link"], Kind::Line, Class::Tertiary),
    (
        "highway",
        &["residential", "unclassified", "living_street", "road", "busway"],
        Kind::Line,
        Class::Minor,
    ),
    ("highway", &["service"], Kind::Line, Class::Service),
    ("highway", &["pedestrian"], Kind::Line, Class::Pedestrian),
    ("highway", &["track"], Kind::Line, Class::Track),
    ("highway", &["footway", "path", "cycleway", "steps", "bridleway", "corridor"], Kind::Line, Class::Path),
    ("railway", &["rail", "narrow_gauge", "light_rail", "funicular"], Kind::Line, Class::Rail),
    ("railway", &["tram", "monorail", "preserved", "miniature"], Kind::Line, Class::MinorRail),
    ("aeroway", &["runway"], Kind::Line, Class::Runway),
    ("aeroway", &["taxiway"], Kind::Line, Class::Taxiway),
    ("waterway", &["river", "canal"], Kind::Line, Class::River),
    ("waterway", &["stream", "ditch", "drain", "tidal_channel"], Kind::Line, Class::Stream),
    ("building", &["*"], Kind::Area, Class::Building),
    ("building:part", &["*"], Kind::Area, Class::Building),
    ("natural", &["water", "bay", "strait"], Kind::Area, Class::Water),
    ("waterway", &["riverbank", "dock", "canal", "river", "stream"], Kind::Area, Class::Water),
    ("landuse", &["reservoir", "basin", "salt_pond"], Kind::Area, Class::Water),
    ("leisure", &["swimming_pool"], Kind::Area, Class::Water),
    ("water", &["*"], Kind::Area, Class::Water),
    ("highway", &["pedestrian", "footway"], Kind::Area, Class::Square),
    ("place", &["square"], Kind::Area, Class::Square),
    ("aeroway", &["runway"], Kind::Area, Class::Runway),
    ("aeroway", &["taxiway", "apron"], Kind::Area, Class::Taxiway),
    ("aeroway", &["aerodrome"], Kind::Area, Class::Airport),
    ("amenity", &["parking"], Kind::Area, Class::Parking),
    ("amenity", &["school", "university", "college", "kindergarten"], Kind::Area, Class::School),
    ("amenity", &["hospital", "clinic"], Kind::Area, Class::Hospital),
    ("amenity", &["grave_yard"], Kind::Area, Class::Cemetery),
    ("landuse", &["cemetery"], Kind::Area, Class::Cemetery),
    ("leisure", &["pitch", "track"], Kind::Area, Class::Pitch),
    (
        "leisure",
        &["park", "garden", "dog_park", "playground", "golf_course", "nature_reserve"],
        Kind::Area,
        Class::Park,
    ),
    ("leisure", &["recreation_ground", "common"], Kind::Area, Class::Park),
    ("landuse", &["forest"], Kind::Area, Class::Wood),
    ("natural", &["wood"], Kind::Area, Class::Wood),
    ("landuse", &["grass", "meadow", "village_green", "greenfield", "flowerbed"], Kind::Area, Class::Grass),
    ("natural", &["grassland", "scrub", "heath", "fell"], Kind::Area, Class::Grass),
    ("landuse", &["recreation_ground", "allotments", "plant_nursery"], Kind::Area, Class::Park),
    ("natural", &["wetland"], Kind::Area, Class::Wetland),
    ("natural", &["sand", "beach", "bare_rock", "scree", "shingle"], Kind::Area, Class::Sand),
    ("natural", &["glacier"], Kind::Area, Class::Ice),
    ("landuse", &["farmland", "farmyard", "farm", "orchard", "vineyard"], Kind::Area, Class::Farmland),
    (
        "landuse",
        &["industrial", "railway", "quarry", "landfill", "port", "depot"],
        Kind::Area,
        Class::Industrial,
    ),
    ("landuse", &["brownfield", "construction", "military"], Kind::Area, Class::Industrial),
    ("landuse", &["commercial", "retail"], Kind::Area, Class::Commercial),
    ("landuse", &["education"], Kind::Area, Class::School),
    ("landuse", &["residential"], Kind::Area, Class::Residential),
];

type Row = (usize, Class);

/// The first row for each key, value and kind.
static ROWS: LazyLock<HashMap<(&str, &str, Kind), Row>> = LazyLock::new(|| {
    let mut rows = HashMap::new();
    for (index, (key, values, kind, class)) in TABLE.iter().enumerate() {
        for value in *values {
            rows.entry((*key, *value, *kind)).or_insert((index, *class));
        }
    }
    rows
});

/// The class of a line or an area with these tags; none when it is not drawn.
pub(super) fn class<'a>(tags: impl Iterator<Item = (&'a str, &'a str)> + Clone, kind: Kind) -> Option<Class> {
    let row = |(key, value): (&str, &str)| {
        let any = (value != "no").then(|| ROWS.get(&(key, "*", kind))).flatten();
        ROWS.get(&(key, value, kind)).or(any).copied()
    };
    let (_, class) = tags.clone().filter_map(row).min_by_key(|(index, _)| *index)?;
    let has = |key: &str, values: &[&str]| tags.clone().any(|(k, v)| k == key && values.contains(&v));
    match class {
        // Water in pipes is not seen.
        Class::River | Class::Stream if level(tags.clone()) == Level::Tunnel => None,
        Class::Rail if has("service", &["yard", "siding", "spur", "crossover"]) => Some(Class::MinorRail),
        class => Some(class),
    }
}

/// Whether tags say that a way is in a tunnel or on a bridge.
pub(super) fn level<'a>(tags: impl Iterator<Item = (&'a str, &'a str)>) -> Level {
    let mut level = Level::Ground;
    for (key, value) in tags {
        match (key, value) {
            ("tunnel" | "bridge", "no" | "building_passage") | ("is_tunnel" | "is_bridge", "no") => {}
            ("tunnel" | "is_tunnel", _) | ("brunnel", "tunnel") => return Level::Tunnel,
            ("bridge" | "is_bridge", _) | ("brunnel", "bridge") => level = Level::Bridge,
            _ => {}
        }
    }
    level
}

/// The class and kind of a closed way, which may be an area or a line that ends where it begins.
pub(super) fn of_closed<'a>(tags: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Option<(Class, Kind)> {
    let area = tags.clone().find(|(key, _)| *key == "area").map(|(_, value)| value);
    let kinds: &[Kind] = match area {
        Some("no") => &[Kind::Line],
        Some(_) => &[Kind::Area],
        // A roundabout is a line, a pond is an area.
        None => &[Kind::Line, Kind::Area],
    };
    kinds.iter().find_map(|kind| Some((class(tags.clone(), *kind)?, *kind)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(tags: &[(&'static str, &'static str)]) -> Option<Class> {
        class(tags.iter().copied(), Kind::Line)
    }

    fn area(tags: &[(&'static str, &'static str)]) -> Option<Class> {
        class(tags.iter().copied(), Kind::Area)
    }

    #[test]
    fn tags_become_classes() {
        assert_eq!(line(&[("highway", "trunk_link"), ("oneway", "yes")]), Some(Class::MotorwayLink));
        assert_eq!(line(&[("highway", "proposed")]), None);
        assert_eq!(line(&[("railway", "rail"), ("service", "yard")]), Some(Class::MinorRail));
        assert_eq!(line(&[("waterway", "stream"), ("tunnel", "culvert")]), None);
        assert_eq!(area(&[("building", "yes"), ("amenity", "school")]), Some(Class::Building));
        assert_eq!(area(&[("building", "no"), ("leisure", "park")]), Some(Class::Park));
        assert_eq!(area(&[("landuse", "residential"), ("natural", "water")]), Some(Class::Water));
        assert_eq!(area(&[("name", "Nowhere")]), None);
    }

    #[test]
    fn tunnels_and_bridges() {
        let of = |key, value| level([("highway", "primary"), (key, value)].into_iter());
        assert_eq!(of("tunnel", "yes"), Level::Tunnel);
        assert_eq!(of("tunnel", "building_passage"), Level::Ground);
        assert_eq!(of("bridge", "viaduct"), Level::Bridge);
        assert_eq!(of("bridge", "no"), Level::Ground);
        assert_eq!(of("brunnel", "bridge"), Level::Bridge);
        assert_eq!(of("lanes", "2"), Level::Ground);
    }

    #[test]
    fn closed_ways_are_lines_or_areas() {
        let of = |tags: &'static [(&str, &str)]| of_closed(tags.iter().copied());
        assert_eq!(of(&[("highway", "primary")]), Some((Class::Primary, Kind::Line)));
        assert_eq!(of(&[("highway", "pedestrian")]), Some((Class::Pedestrian, Kind::Line)));
        assert_eq!(of(&[("highway", "pedestrian"), ("area", "yes")]), Some((Class::Square, Kind::Area)));
        assert_eq!(of(&[("building", "yes")]), Some((Class::Building, Kind::Area)));
        assert_eq!(of(&[("building", "yes"), ("area", "no")]), None);
    }
}
