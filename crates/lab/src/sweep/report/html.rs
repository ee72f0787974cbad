//! A sweep as one page of HTML.

use earthmapper_geo::page::Page;

use super::table::ABOUT_DIFFERENCES;
use super::{Figure, Results};

impl Results {
    /// The page. It needs nothing else: tables and plots are inside. There are no pictures in it.
    pub fn html(&self, figures: &[Figure]) -> String {
        let mut page = Page::new(&self.config.title);
        if !self.config.about.is_empty() {
            page.paragraph(self.config.about.trim());
        }
        page.table(&self.cells());
        page.raw("<ul>");
        for note in self.notes() {
            page.raw("<li>");
            page.text(&note);
            page.raw("</li>");
        }
        page.raw("</ul>");
        if let Some((label, cells)) = self.cells_of_differences() {
            page.heading(&format!("Difference from: {label}"));
            page.paragraph(ABOUT_DIFFERENCES);
            page.table(&cells);
        }
        for figure in figures {
            page.heading(&figure.title);
            page.raw(&figure.svg);
            if !figure.about.is_empty() {
                page.paragraph(&figure.about);
            }
        }
        if let Some(groups) = &self.groups {
            page.heading("By urban density");
            page.paragraph(&Self::about_groups(groups));
            for column in self.grouped_columns() {
                page.subheading(column.heading());
                page.table(&self.cells_by_density(column, groups));
            }
        }
        page.finish()
    }
}
