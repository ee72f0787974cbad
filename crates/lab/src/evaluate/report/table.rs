//! The numbers as tables: Markdown that also reads as plain text, and cells for a page.

use earthmapper::Modality;

use crate::evaluate::evaluation::{Candidate, Evaluation, Section};

const NOT_COMPUTED: &str = "not computed";

impl Section {
    /// What the section is about.
    pub fn heading(&self) -> &'static str {
        match self.target {
            Modality::Map => "Maps",
            Modality::Satellite => "Photographs",
        }
    }

    /// The cells of the table, head first: a row per metric, a column per candidate. What is missing is said where it would
    /// stand.
    pub fn cells(&self, pictures: usize) -> Vec<Vec<String>> {
        let is_left_out = |candidate: &Candidate| {
            let heading = candidate.heading(self.target);
            self.not_computed.iter().any(|missing| missing.what == heading)
        };
        let is_shown = |candidate: &Candidate| self.candidates.contains(candidate) || is_left_out(candidate);
        let columns: Vec<Candidate> = Candidate::ALL.into_iter().filter(is_shown).collect();
        let row = |name: &str, cell: &dyn Fn(Candidate) -> String| {
            let cells = columns.iter().map(|candidate| match is_left_out(candidate) {
                true => NOT_COMPUTED.to_owned(),
                false => cell(*candidate),
            });
            std::iter::once(name.to_owned()).chain(cells).collect::<Vec<String>>()
        };
        let headings = columns.iter().map(|candidate| candidate.heading(self.target).to_owned());
        let mut rows = vec![std::iter::once(String::new()).chain(headings).collect()];
        rows.push(row("pictures", &|_| pictures.to_string()));
        for found in &self.rows {
            let text = |candidate: Candidate| {
                found
                    .numbers
                    .get(&candidate)
                    .map_or_else(String::new, |number| number.text(found.metric.digits))
            };
            rows.push(row(&found.metric.name, &text));
        }
        let is_column =
            |what: &str| Candidate::ALL.iter().any(|candidate| candidate.heading(self.target) == what);
        for missing in self.not_computed.iter().filter(|missing| !is_column(&missing.what)) {
            rows.push(row(&missing.what, &|_| NOT_COMPUTED.into()));
        }
        rows
    }
}

impl Evaluation {
    /// All sections as Markdown tables.
    pub fn table(&self) -> String {
        let table = |section: &Section| {
            format!("### {}\n\n{}", section.heading(), markdown(&section.cells(self.pairs)))
        };
        self.sections.iter().map(table).collect::<Vec<_>>().join("\n")
    }

    /// What the tables do not hold, one line each.
    pub fn notes(&self) -> String {
        let mut text = String::from(
            "- In brackets: 95 % bootstrap intervals over pictures\n\
             - detail: edge content ÷ that of the true pictures; below 1 is smoother\n",
        );
        if self.sections.iter().any(|section| section.target == Modality::Satellite) {
            text += "- PSNR, SSIM and RMSE of photographs are a footnote: many photographs fit one map\n";
        }
        let mut said = Vec::new();
        for missing in self.sections.iter().flat_map(|section| &section.not_computed) {
            if !said.contains(&missing) {
                text += &format!("- {}: not computed; {}\n", missing.what, missing.cure);
                said.push(missing);
            }
        }
        if let Some(seconds) = self.seconds_per_translation {
            text += &format!("- {seconds:.2} s per satellite → map translation\n");
        }
        text
    }
}

/// A Markdown table with aligned columns.
pub(crate) fn markdown(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut table = String::new();
    for (number, row) in rows.iter().enumerate() {
        for (cell, width) in row.iter().zip(&widths) {
            table += &format!("| {cell:width$} ");
        }
        table += "|\n";
        if number == 0 {
            widths.iter().for_each(|width| table += &format!("|{}", "-".repeat(width + 2)));
            table += "|\n";
        }
    }
    table
}
