//! WMTS capabilities: what QGIS and other programs ask for to find the tiles, which they then fetch by address. Without a
//! list of operations clients know that there is no other way.

use std::fmt::Write;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use earthmapper::Modality;

use super::catalog::edges;
use super::parameters::base_url;
use super::reply::{Params, bytes_response};
use crate::app::{App, Shared};
use crate::sources::Layer;

/// What is said to requests for operations.
const NO_OPERATION: &[u8] = br#"<?xml version="1.0" encoding="UTF-8"?>
<ExceptionReport xmlns="http://www.opengis.net/ows/1.1" version="1.1.0">
  <Exception exceptionCode="OperationNotSupported"><ExceptionText>Only GetCapabilities is answered here; tiles are fetched by the addresses in its answer.</ExceptionText></Exception>
</ExceptionReport>
"#;

/// Width of the world of web Mercator in metres.
const WORLD: f64 = 2.0 * 20_037_508.342_789_244;

/// Metres per pixel that WMTS takes for the size of a pixel on a screen.
const SCREEN_PIXEL: f64 = 0.000_28;

/// The capabilities. Names of parameters are in capitals or not, as WMTS has it; other operations do not exist here.
pub async fn capabilities(
    State(app): State<Shared>,
    Params(params): Params<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Response {
    let given = |name: &str| params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
    let is_other = |(name, expected): (&str, &str)| {
        given(name).is_some_and(|(_, value)| !value.eq_ignore_ascii_case(expected))
    };
    if [("service", "WMTS"), ("request", "GetCapabilities")].into_iter().any(is_other) {
        return bytes_response(StatusCode::BAD_REQUEST, "application/xml", Bytes::from_static(NO_OPERATION));
    }
    let document = document(&app, &base_url(&app, &headers));
    bytes_response(StatusCode::OK, "application/xml", Bytes::from(document))
}

fn document(app: &App, base: &str) -> String {
    let base = escaped(base);
    let mut layers = String::new();
    let mut sets: Vec<(u32, u8)> = Vec::new();
    let mut add = |layer: &Layer, zooms: (u8, u8), name: &str, title: &str, url: &str, types: &[&str]| {
        match sets.iter_mut().find(|(side, _)| *side == layer.side) {
            Some((_, deepest)) => *deepest = (*deepest).max(zooms.1),
            None => sets.push((layer.side, zooms.1)),
        }
        layers.push_str(&described(layer, zooms, name, title, url, types));
    };
    for source in app.tiles.sources.iter() {
        let (id, name) = (&source.id, escaped(&source.name));
        for to in source.directions() {
            let Some((layer, zooms)) = source.translation(to) else { continue };
            let kinds = [
                ("", format!("{name}: {to}, synthetic"), &["png", "jpg", "webp"][..]),
                ("uncertainty/", format!("{name}: uncertainty of the {to}"), &["png"][..]),
            ];
            for (part, title, types) in kinds {
                let identifier = format!("{id}-{}{to}", part.replace('/', "-"));
                let url = format!("{base}/{id}/{part}{{TileMatrix}}/{{TileCol}}/{{TileRow}}.ENDING?to={to}");
                add(layer, zooms, &identifier, &title, &url, types);
            }
        }
        for of in Modality::ALL {
            let Some(layer) = source.original(of) else { continue };
            let url = format!("{base}/{id}/original/{{TileMatrix}}/{{TileCol}}/{{TileRow}}.ENDING?of={of}");
            let title = format!("{name}: {of}, original");
            add(layer, layer.stored, &format!("{id}-original-{of}"), &title, &url, &["png"]);
        }
    }
    let sets: String = sets.iter().map(|(side, deepest)| matrix_set(*side, *deepest)).collect();
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<Capabilities xmlns="http://www.opengis.net/wmts/1.0" xmlns:ows="http://www.opengis.net/ows/1.1" xmlns:xlink="http://www.w3.org/1999/xlink" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:schemaLocation="http://www.opengis.net/wmts/1.0 http://schemas.opengis.net/wmts/1.0/wmtsGetCapabilities_response.xsd" version="1.0.0">
  <ows:ServiceIdentification>
    <ows:Title>EarthMapper</ows:Title>
    <ows:Abstract>Synthetic tiles, made by the trained model {model}; not a record of the ground.</ows:Abstract>
    <ows:ServiceType>OGC WMTS</ows:ServiceType>
    <ows:ServiceTypeVersion>1.0.0</ows:ServiceTypeVersion>
  </ows:ServiceIdentification>
  <Contents>
{layers}{sets}  </Contents>
  <ServiceMetadataURL xlink:href="{base}/wmts"/>
</Capabilities>
"#,
        model = escaped(&app.tiles.model),
    )
}

fn described(layer: &Layer, zooms: (u8, u8), name: &str, title: &str, url: &str, types: &[&str]) -> String {
    let [west, south, east, north] = edges(layer);
    let media =
        |ending: &str| if ending == "jpg" { "image/jpeg".to_owned() } else { format!("image/{ending}") };
    let formats: String =
        types.iter().map(|ending| format!("      <Format>{}</Format>\n", media(ending))).collect();
    let mut limits = String::new();
    for zoom in zooms.0..=zooms.1 {
        let Ok(cover) = layer.bounds.tiles(zoom) else { continue };
        let last = cover.get(cover.len() - 1).expect("a cover holds at least one tile");
        let first = cover.get(0).expect("a cover holds at least one tile");
        // Over the antimeridian columns begin anew: the whole row is named.
        let (west, east) =
            if first.x() <= last.x() { (first.x(), last.x()) } else { (0, (1u32 << zoom) - 1) };
        let _ = writeln!(
            limits,
            "          <TileMatrixLimits><TileMatrix>{zoom}</TileMatrix><MinTileRow>{}</MinTileRow><MaxTileRow>{}</MaxTileRow><MinTileCol>{west}</MinTileCol><MaxTileCol>{east}</MaxTileCol></TileMatrixLimits>",
            first.y(),
            last.y(),
        );
    }
    let resources: String = types
        .iter()
        .map(|ending| {
            let template = escaped(&url.replace("ENDING", ending));
            format!(
                "      <ResourceURL format=\"{}\" resourceType=\"tile\" template=\"{template}\"/>\n",
                media(ending)
            )
        })
        .collect();
    format!(
        "    <Layer>
      <ows:Title>{title}</ows:Title>
      <ows:WGS84BoundingBox><ows:LowerCorner>{west} {south}</ows:LowerCorner><ows:UpperCorner>{east} {north}</ows:UpperCorner></ows:WGS84BoundingBox>
      <ows:Identifier>{name}</ows:Identifier>
      <Style isDefault=\"true\"><ows:Identifier>default</ows:Identifier></Style>
{formats}      <TileMatrixSetLink>
        <TileMatrixSet>{set}</TileMatrixSet>
        <TileMatrixSetLimits>
{limits}        </TileMatrixSetLimits>
      </TileMatrixSetLink>
{resources}    </Layer>
",
        set = set_name(layer.side),
    )
}

fn set_name(side: u32) -> String {
    match side {
        256 => "GoogleMapsCompatible".to_owned(),
        side => format!("WebMercator{side}"),
    }
}

fn matrix_set(side: u32, deepest: u8) -> String {
    let well_known = match side {
        256 => "\n      <WellKnownScaleSet>urn:ogc:def:wkss:OGC:1.0:GoogleMapsCompatible</WellKnownScaleSet>",
        _ => "",
    };
    // The well-known set has zooms 0 to 18; clients take more as they come.
    let mut matrices = String::new();
    for zoom in 0..=deepest.max(18) {
        let scale = WORLD / f64::from(side) / f64::from(1u32 << zoom) / SCREEN_PIXEL;
        let count = 1u32 << zoom;
        let half = WORLD / 2.0;
        let _ = writeln!(
            matrices,
            "      <TileMatrix><ows:Identifier>{zoom}</ows:Identifier><ScaleDenominator>{scale}</ScaleDenominator><TopLeftCorner>-{half} {half}</TopLeftCorner><TileWidth>{side}</TileWidth><TileHeight>{side}</TileHeight><MatrixWidth>{count}</MatrixWidth><MatrixHeight>{count}</MatrixHeight></TileMatrix>",
        );
    }
    format!(
        "    <TileMatrixSet>
      <ows:Identifier>{}</ows:Identifier>
      <ows:SupportedCRS>urn:ogc:def:crs:EPSG::3857</ows:SupportedCRS>{well_known}
{matrices}    </TileMatrixSet>
",
        set_name(side)
    )
}

/// Text as XML allows it.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\0'..='\u{1f}' => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}
