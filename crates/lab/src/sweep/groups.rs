//! Pairs by how urban they are: terciles of the share of their true map's pixels that roads (and buildings, where maps have a
//! class of them) cover.

use earthmapper::Modality;

use super::record::Record;

/// Names of the groups, from the fewest to the most urban pixels.
pub const NAMES: [&str; 3] = ["sparse", "middle", "dense"];

/// A tercile of the pairs.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// One of [`NAMES`].
    pub name: &'static str,
    /// The lowest and the highest share of urban pixels in it.
    pub range: [f64; 2],
    /// Names of its pairs.
    pub names: Vec<String>,
}

/// Names of the classes that count as urban: those wanted, else all roads and every class called building.
pub fn urban_classes(record: &Record, wanted: &[String]) -> Vec<String> {
    let classes = record.evaluation.palette.classes();
    let counts = |name: &str, is_road: bool| match wanted.is_empty() {
        true => is_road || name.to_lowercase().starts_with("building"),
        false => wanted.iter().any(|wanted| wanted == name),
    };
    classes
        .iter()
        .filter(|class| counts(&class.name, class.is_road))
        .map(|class| class.name.clone())
        .collect()
}

/// Share of each pair's true map that is urban, by name of the pair; none when no maps were measured.
fn shares(record: &Record, urban: &[String]) -> Option<Vec<(f64, String)>> {
    let classes = record.evaluation.palette.classes();
    let is_urban = |class: &usize| urban.contains(&classes[*class].name);
    let (_, pictures) = record.measured.section(Modality::Map)?.columns.first()?;
    let share = |(index, name): (usize, &String)| {
        let confusion = pictures[index].confusion.as_ref()?;
        let pixels: u64 = (0..classes.len()).filter(is_urban).map(|class| confusion.truth(class)).sum();
        Some((pixels as f64 / confusion.pixels().max(1) as f64, name.clone()))
    };
    record.measured.names.iter().enumerate().map(share).collect()
}

/// The terciles of a record's pairs, the sparse ones first. Where the pairs do not divide by three, the middle has one more
/// or less. None with fewer than three pairs, without maps, or without a class that is urban.
pub fn terciles(record: &Record, wanted: &[String]) -> Option<Vec<Group>> {
    let urban = urban_classes(record, wanted);
    let mut shares = shares(record, &urban).filter(|shares| shares.len() >= 3 && !urban.is_empty())?;
    shares.sort_by(|left, right| left.0.total_cmp(&right.0).then_with(|| left.1.cmp(&right.1)));
    let third = |number: usize| (number * shares.len() + 1) / 3;
    let group = |(number, name): (usize, &'static str)| {
        let members = &shares[third(number)..third(number + 1)];
        Group {
            name,
            range: [members[0].0, members[members.len() - 1].0],
            names: members.iter().map(|(_, name)| name.clone()).collect(),
        }
    };
    Some(NAMES.into_iter().enumerate().map(group).collect())
}
