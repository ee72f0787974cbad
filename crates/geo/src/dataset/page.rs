//! A dataset as one page of HTML.

use super::split::Split;
use super::stats::{ChannelStats, DatasetStats};
use super::world::colour;
use crate::page::Page;

pub(super) fn html(stats: &DatasetStats) -> String {
    let title = stats.manifest.folder.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let title = if title.is_empty() { "dataset".into() } else { title };
    let mut page = Page::new(&title);
    counts(&mut page, stats);
    filters(&mut page, stats);
    sources(&mut page, stats);
    places(&mut page, stats);
    colours(&mut page, stats);
    let sheets = [
        ("Pairs", "Photograph left, map right.", &stats.contact),
        (
            "Alignment",
            "The photograph, and the same with the edges of its map. Lines beside what they should go around mean that both do not fit.",
            &stats.alignment,
        ),
    ];
    for (heading, explanation, sheet) in sheets {
        if let Some((picture, names)) = sheet {
            page.heading(heading);
            page.paragraph(explanation);
            page.picture(heading, picture, None);
            page.names(&format!("Row by row: {}", names.join(", ")));
        }
    }
    page.finish()
}

fn counts(page: &mut Page, stats: &DatasetStats) {
    let total: usize = stats.splits.values().sum();
    page.raw("<table>");
    page.row(&"Pairs", &total);
    for split in [Some(Split::Train), Some(Split::Validation), Some(Split::Test), None] {
        let name = split.map_or("between splits, not used", |split| split.name());
        page.raw("<tr><td>");
        page.swatch(colour(split));
        page.text(name);
        page.raw("</td><td class=\"n\">");
        page.text(&stats.splits.get(&split).copied().unwrap_or(0).to_string());
        page.raw("</td></tr>");
    }
    for (zoom, count) in &stats.zooms {
        let name = zoom.map_or("cut along a raster".to_owned(), |zoom| format!("zoom {zoom}"));
        page.row(&name, count);
    }
    if let Some((least, median, most)) = stats.metres_per_pixel {
        page.row(&"Metres per pixel", &format!("{least:.3} … {median:.3} … {most:.3}"));
    }
    page.raw("</table>");
    if let Some(split) = &stats.manifest.header.split {
        page.paragraph(&format!(
            "Split by blocks of zoom {}, seed {}, {} m kept between splits, {} regions held out.",
            split.block_zoom,
            split.seed,
            split.buffer_metres,
            split.hold_out.len()
        ));
    }
}

fn filters(page: &mut Page, stats: &DatasetStats) {
    let Some(report) = &stats.manifest.header.report else { return };
    page.heading("Made from");
    page.raw("<table>");
    page.row(&"Candidates", &report.candidates);
    page.row(&"Kept", &report.kept);
    page.row(&"Left out by rules", &report.rejected);
    for (rule, count) in &report.rules {
        page.row(&format!("… {rule}"), count);
    }
    page.row(&"Unreadable", &report.unreadable);
    page.row(&"Moved onto their map", &report.corrected);
    for (source, (right, down, count)) in &report.shifts {
        page.row(
            &format!("Median shift of {source}"),
            &format!("{right:.1} px right, {down:.1} px down (of {count} pairs that are sure)"),
        );
    }
    page.raw("</table>");
}

fn sources(page: &mut Page, stats: &DatasetStats) {
    page.heading("Sources");
    page.raw("<table><tr><th>source</th><th>pairs</th><th>imagery</th><th>map</th></tr>");
    for source in &stats.manifest.header.sources {
        page.raw("<tr><td>");
        page.text(&source.name);
        page.raw("</td><td class=\"n\">");
        page.text(&stats.sources.get(&source.name).copied().unwrap_or(0).to_string());
        for credit in [&source.imagery, &source.map] {
            page.raw("</td><td>");
            page.text(credit.attribution.as_deref().unwrap_or("no attribution known"));
            page.raw("; ");
            page.text(credit.licence.as_deref().unwrap_or("no licence known"));
        }
        page.raw("</td></tr>");
    }
    page.raw("</table>");
}

fn places(page: &mut Page, stats: &DatasetStats) {
    page.heading("Places");
    page.picture("The world", &stats.world, None);
    for (source, picture) in &stats.grounds {
        page.paragraph(&format!(
            "Ground of {source}, north up, a frame for each pair in the colour of its split:"
        ));
        page.picture(source, picture, None);
    }
}

fn colours(page: &mut Page, stats: &DatasetStats) {
    if stats.sampled == 0 {
        return;
    }
    page.heading("Colours");
    page.paragraph(&format!("Of {} pairs, mean ± standard deviation, of 255.", stats.sampled));
    page.raw("<table><tr><th></th><th>red</th><th>green</th><th>blue</th></tr>");
    let mut channels = |name: &str, of: &ChannelStats| {
        page.raw("<tr><td>");
        page.swatch(of.mean.map(|mean| mean.round() as u8));
        page.text(name);
        for channel in 0..3 {
            page.raw("</td><td class=\"n\">");
            page.text(&format!("{:.1} ± {:.1}", of.mean[channel], of.deviation[channel]));
        }
        page.raw("</td></tr>");
    };
    channels("photographs", &stats.photographs);
    channels("maps", &stats.maps);
    page.raw("</table><p>Commonest colours of the maps: ");
    for (colour, share) in &stats.map_colours {
        page.swatch(*colour);
        page.text(&format!("{:.1} %  ", share * 100.0));
    }
    page.raw("</p>");
}
