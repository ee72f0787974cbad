//! The evaluation as one page of HTML.

use earthmapper::Modality;
use earthmapper_geo::page::Page;

use super::Evaluated;
use super::plots;
use crate::evaluate::evaluation::{Candidate, Section, Subject};

impl Evaluated {
    /// The page. It needs nothing else: tables, plots and pictures are inside.
    pub fn html(&self) -> String {
        let evaluation = &self.evaluation;
        let mut page = Page::new(&format!("Evaluation of {}", evaluation.subject.name()));
        self.about(&mut page);
        for section in &evaluation.sections {
            page.heading(section.heading());
            page.table(&section.cells(evaluation.pairs));
            for missing in &section.not_computed {
                page.paragraph(&format!("{}: not computed; {}.", missing.what, missing.cure));
            }
            if let Some(plot) = plots::scores(section) {
                page.raw(&plot);
            }
            self.confusion(&mut page, section);
            self.pictures_of(&mut page, section.target);
        }
        page.heading("How to read it");
        page.raw("<ul>");
        for line in evaluation.notes().lines() {
            page.raw("<li>");
            page.text(line.trim_start_matches("- "));
            page.raw("</li>");
        }
        page.raw("</ul>");
        page.finish()
    }

    fn about(&self, page: &mut Page) {
        let evaluation = &self.evaluation;
        let [first, last] = &evaluation.names;
        page.paragraph(&format!(
            "{} pairs, {first} to {last}, compared at {side} × {side} pixels. The pictures called made are synthetic: no records \
             of the ground.",
            evaluation.pairs,
            side = evaluation.side,
        ));
        if let Subject::Model { weights, generation, seed, .. } = &evaluation.subject {
            page.raw("<table>");
            page.row(&"seed", seed);
            if let Some(weights) = weights {
                page.row(&"SHA-256 of configurations and weights", weights);
            }
            for section in &evaluation.sections {
                let options = generation.towards(section.target);
                let text = serde_json::to_string(options).expect("plain data");
                page.row(&format!("options toward {} pictures", section.target), &text);
            }
            page.raw("</table>");
        }
    }

    /// Which classes are taken for which, in shares of the true pixels of a class.
    fn confusion(&self, page: &mut Page, section: &Section) {
        let Some(confusion) = &section.confusion else { return };
        let names = || self.evaluation.palette.classes().iter().map(|class| class.name.clone());
        let mut rows = vec![std::iter::once("true \\ made".to_owned()).chain(names()).collect::<Vec<_>>()];
        for (class, name) in names().enumerate() {
            let all = confusion.truth(class);
            let share = |&count: &u64| match all {
                0 => "–".to_owned(),
                all => format!("{:.1} %", 100.0 * count as f64 / all as f64),
            };
            rows.push(std::iter::once(name).chain(confusion.counts()[class].iter().map(share)).collect());
        }
        page.subheading("Where the pixels of each class went");
        page.table(&rows);
    }

    /// Plots over pictures, and the sheets.
    fn pictures_of(&self, page: &mut Page, target: Modality) {
        let Some((label, worth)) = self.measured.worth(target) else { return };
        page.subheading("Picture by picture");
        page.paragraph(&format!("Pictures are ordered by their {label}."));
        page.raw(&plots::histogram(&worth, label));
        let made = self.measured.section(target).and_then(|section| section.column(Candidate::Model));
        let entropy = |index: usize| made?[index].value("mean entropy");
        let points: Vec<(f64, f64)> =
            worth.iter().enumerate().filter_map(|(index, &worth)| Some((entropy(index)?, worth))).collect();
        if points.len() > 1 {
            page.raw(&plots::scatter(&points, "mean entropy of the tokens", label));
        }
        if let Some(map) = plots::error_map(&self.measured.positions, &worth) {
            page.subheading("Where they lie");
            page.raw(&map);
        }
        for sheet in self.sheets.iter().filter(|sheet| sheet.target == target) {
            let title = format!("The {} pictures", sheet.rank);
            page.subheading(&title);
            page.paragraph(&format!("From the left: {}.", sheet.columns.join(", ")));
            page.picture(&title, &sheet.picture, Some(&self.provenance));
            let names: Vec<String> =
                sheet.rows.iter().map(|(name, worth)| format!("{name} ({worth:.2})")).collect();
            page.names(&format!("From the top: {}", names.join(", ")));
        }
    }
}
