//! One page of HTML that opens anywhere: pictures are inside, there is no script, nothing comes from the net.

use std::fmt::{Display, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::picture::{Picture, WriteOptions, encode_picture};
use crate::provenance::{Provenance, escaped};

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;\
color:#222;background:#fff}h1{font-size:1.5rem}h2{font-size:1.15rem;margin:2rem 0 .5rem}\
table{border-collapse:collapse;margin:.5rem 0}td,th{border-bottom:1px solid #ddd;padding:.2rem .8rem .2rem 0;\
text-align:left;vertical-align:top}table.t td{white-space:nowrap}td.n{text-align:right;font-variant-numeric:tabular-nums}\
img,svg{max-width:100%;height:auto;display:block;border:1px solid #ddd;margin:.5rem 0}\
i.c{display:inline-block;width:1.1em;height:1.1em;border:1px solid #999;vertical-align:-.2em;margin-right:.4em}\
p.names{font-size:.8rem;color:#555;word-break:break-all}";

/// No script, no frame, nothing from elsewhere, even if a name in the data should try.
const POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'";

/// A page that grows from the top. Texts are escaped, so that names of files and places cannot break it.
#[derive(Clone, Debug)]
pub struct Page(String);

impl Page {
    /// A page with a title and nothing else yet.
    pub fn new(title: &str) -> Self {
        let title = escaped(title);
        Self(format!(
            "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
             <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\"><style>{STYLE}</style></head>\
             <body><h1>{title}</h1>"
        ))
    }

    /// The whole page.
    pub fn finish(mut self) -> String {
        self.raw("</body></html>\n");
        self.0
    }

    /// HTML as it is, which the caller answers for: tags, or a drawing as SVG.
    pub fn raw(&mut self, html: &str) {
        self.0 += html;
    }

    /// Text, escaped.
    pub fn text(&mut self, text: &str) {
        self.0 += &escaped(text);
    }

    /// A heading of a part of the page.
    pub fn heading(&mut self, text: &str) {
        self.element("h2", text);
    }

    /// A heading below [`heading`](Self::heading).
    pub fn subheading(&mut self, text: &str) {
        self.element("h3", text);
    }

    /// A paragraph.
    pub fn paragraph(&mut self, text: &str) {
        self.element("p", text);
    }

    /// A small paragraph of names.
    pub fn names(&mut self, text: &str) {
        self.raw("<p class=\"names\">");
        self.text(text);
        self.raw("</p>");
    }

    /// A row of a table: a name and a number.
    pub fn row(&mut self, name: &dyn Display, value: &dyn Display) {
        self.raw("<tr><td>");
        self.text(&name.to_string());
        self.raw("</td><td class=\"n\">");
        self.text(&value.to_string());
        self.raw("</td></tr>");
    }

    /// A table whose first row is its head and whose first column are names.
    pub fn table(&mut self, rows: &[Vec<String>]) {
        self.raw("<table class=\"t\">");
        for (number, row) in rows.iter().enumerate() {
            self.raw("<tr>");
            for (column, cell) in row.iter().enumerate() {
                let (open, close) = match (number, column) {
                    (0, _) => ("<th>", "</th>"),
                    (_, 0) => ("<td>", "</td>"),
                    _ => ("<td class=\"n\">", "</td>"),
                };
                self.raw(open);
                self.text(cell);
                self.raw(close);
            }
            self.raw("</tr>");
        }
        self.raw("</table>");
    }

    /// A small square of a colour.
    pub fn swatch(&mut self, [red, green, blue]: [u8; 3]) {
        write!(self.0, "<i class=\"c\" style=\"background:rgb({red},{green},{blue})\"></i>")
            .expect("a text grows without errors");
    }

    /// A picture, inside the page, with what it is called and where it comes from.
    pub fn picture(&mut self, name: &str, picture: &Picture, provenance: Option<&Provenance>) {
        let options = WriteOptions { provenance: provenance.cloned(), ..WriteOptions::default() };
        let png = encode_picture("png", picture, &options).expect("a sheet fits into a PNG");
        self.raw("<img alt=\"");
        self.text(name);
        self.raw("\" src=\"data:image/png;base64,");
        STANDARD.encode_string(png, &mut self.0);
        self.raw("\">");
    }

    fn element(&mut self, tag: &str, text: &str) {
        self.raw(&format!("<{tag}>"));
        self.text(text);
        self.raw(&format!("</{tag}>"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_a_page() {
        let mut page = Page::new("a < b");
        page.heading("<script>");
        page.table(&[vec!["".into(), "x & y".into()], vec!["one".into(), "1".into()]]);
        page.picture("\"quoted\"", &Picture::filled(2, 2, [9; 3]), None);
        let html = page.finish();
        assert!(
            html.contains("<title>a &lt; b</title>") && html.contains("<h2>&lt;script&gt;</h2>"),
            "{html}"
        );
        assert!(html.contains("<th>x &amp; y</th>") && html.contains("<td class=\"n\">1</td>"), "{html}");
        assert!(html.contains("alt=\"&quot;quoted&quot;\" src=\"data:image/png;base64,iVBOR"), "{html}");
        assert!(html.ends_with("</body></html>\n") && !html.contains("<script"), "{html}");
    }
}
