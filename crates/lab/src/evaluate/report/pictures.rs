//! The scores of every picture as comma-separated values.

use super::Evaluated;

impl Evaluated {
    /// A line per pair and candidate: pair, longitude, latitude (empty where unknown), target, candidate, then one column per
    /// metric, empty where it says nothing.
    pub fn pictures(&self) -> String {
        let mut metrics: Vec<&str> = Vec::new();
        for section in &self.evaluation.sections {
            for row in &section.rows {
                if !metrics.contains(&row.metric.name.as_str()) {
                    metrics.push(&row.metric.name);
                }
            }
        }
        // Metrics of sets have no value of one picture.
        let is_of_pictures = |metric: &&str| {
            let sections = self.measured.sections.iter();
            let mut first = sections.flat_map(|section| &section.columns).filter_map(|(_, all)| all.first());
            first.any(|picture| picture.scores.iter().any(|score| score.metric.name == **metric))
        };
        metrics.retain(is_of_pictures);
        let mut writer = csv::Writer::from_writer(Vec::new());
        let head = ["pair", "longitude", "latitude", "target", "candidate"];
        let mut write = |record: Vec<String>| writer.write_record(record).expect("memory takes every record");
        write(head.iter().chain(&metrics).map(ToString::to_string).collect());
        for (index, name) in self.measured.names.iter().enumerate() {
            let place = match self.measured.positions[index] {
                Some(position) => [position.longitude(), position.latitude()].map(|x| format!("{x:.6}")),
                None => [String::new(), String::new()],
            };
            for section in &self.measured.sections {
                for (candidate, pictures) in &section.columns {
                    let mut record = vec![name.clone()];
                    record.extend(place.clone());
                    record.extend([section.target.to_string(), candidate.to_string()]);
                    let value = |metric: &&str| pictures[index].value(metric);
                    let text =
                        |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.6}"));
                    record.extend(metrics.iter().map(|metric| text(value(metric))));
                    write(record);
                }
            }
        }
        let bytes = writer.into_inner().expect("memory needs no flushing");
        String::from_utf8(bytes).expect("everything written was text")
    }
}
