//! Pictures sent and pictures made: translate, in-paint, generate.

use std::io::Write;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Extension, Multipart, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use base64::Engine as _;
use earthmapper::scene::WindowOptions;
use earthmapper::translator::Translator;
use earthmapper::windows::Setting;
use earthmapper::{Modality, Place, resolution};
use earthmapper_geo::picture::{Mask, decode_mask, decode_picture, encode_grey, encode_picture};
use earthmapper_geo::raster::{PixelWindow, RasterLimits, RasterReader, Stretch};
use earthmapper_geo::{Picture, PictureError, PictureLimits, Provenance, WriteOptions};
use serde_json::{Value, json};

use super::parameters::{Answer, MakeParams};
use super::reply::{Params, Problem, Sent, bytes_response, json_response, too_large};
use crate::app::{App, Shared};
use crate::guard::Peer;

/// How much more pixels all results together may have than one picture.
const RESULTS: u64 = 4;

/// A picture that was sent.
struct Input {
    picture: Picture,
    /// Where there is no data.
    nodata: Option<Mask>,
    place: Option<Place>,
    /// West, south, east, north in degrees, if it says where it lies.
    bounds: Option<[f64; 4]>,
}

/// One result.
struct Output {
    name: &'static str,
    picture: Picture,
    uncertainty: Option<Vec<u8>>,
    seed: u64,
}

type From = Option<Extension<Peer>>;

fn pass(app: &Shared, from: From) -> Result<crate::app::Pass, Problem> {
    app.enter(from.map(|Extension(Peer(address))| address))
}

/// Translates the picture that is the body.
pub async fn translate(
    State(app): State<Shared>,
    Params(params): Params<MakeParams>,
    from: From,
    Sent(body): Sent,
) -> Result<Response, Problem> {
    params.only(&["to", "samples", "views", "scale"])?;
    let to = params.to.ok_or_else(|| Problem::BadRequest("to: is missing; give map or satellite".into()))?;
    let (samples, place) = (params.samples(&app)?, params.place(&app)?);
    let answer = answer(&params, samples, Answer::Png)?;
    let options = params.translation(app.facts.generation.towards(to), to)?;
    let _pass = pass(&app, from)?;
    let pixels = app.config.limits.pixels;
    let input = blocking(move || read(&body, pixels)).await?;
    let place = place.or(input.place.filter(|_| app.facts.config.trained_on.places_known));
    let scale = scale(&app, &params, input.place)?;
    let (width, height) =
        (f64::from(input.picture.width()) * scale, f64::from(input.picture.height()) * scale);
    let side = f64::from(app.facts.side);
    let working = width.max(side) * height.max(side) * (samples * options.views) as f64;
    if working > (RESULTS * pixels) as f64 {
        let text = format!(
            "all views of all results together would have {working:.0} pixels; at most {} are made",
            RESULTS * pixels
        );
        return Err(Problem::TooLarge(text));
    }
    let seed = params.seed.unwrap_or(0);
    let label = app.facts.config.label(&format!("{} → {to}", to.other()), seed, None, place, &options);
    let batch_size = app.config.engine.batch_size;
    let Input { picture, nodata, bounds, .. } = input;
    let made = app.tiles.engine.call(move |model| {
        let setting = Setting { place, seed, options: &options };
        let windows = WindowOptions { batch_size, scale, samples, ..Default::default() };
        Translator::new(model).translate(&picture, to, &setting, &windows, &mut |_, _| {})
    });
    let made = made.await?.map_err(broken)?;
    let results = made.into_iter().map(|mut made| {
        if let Some(nodata) = &nodata {
            blacken(&mut made.picture, nodata);
        }
        Output { name: to.name(), picture: made.picture, uncertainty: Some(made.uncertainty), seed }
    });
    respond(answer, results.collect(), label, bounds).await
}

/// Fills the hole of a picture.
pub async fn inpaint(
    State(app): State<Shared>,
    Params(params): Params<MakeParams>,
    from: From,
    form: Result<Multipart, axum::extract::multipart::MultipartRejection>,
) -> Result<Response, Problem> {
    params.only(&["as"])?;
    let kind =
        params.kind.ok_or_else(|| Problem::BadRequest("as: is missing; give map or satellite".into()))?;
    let form = form.map_err(|error| Problem::UnsupportedType(error.body_text()))?;
    let place = params.place(&app)?;
    let answer = answer(&params, 1, Answer::Png)?;
    let options = params.options(app.facts.generation.towards(kind))?.in_one_view();
    let _pass = pass(&app, from)?;
    let patience = Duration::from_secs(2 * app.config.limits.idle_seconds);
    let fields = tokio::time::timeout(patience, fields(form, &app)).await.map_err(|_| Problem::TooSlow)??;
    let pixels = app.config.limits.pixels;
    let (picture, mask, given) = blocking(move || {
        let [picture, mask, given] = fields;
        let missing = |name: &str| Problem::BadRequest(format!("{name}: is missing from the form"));
        let picture = read(&picture.ok_or_else(|| missing("picture"))?, pixels)?.picture;
        let mask =
            decode_mask(&mask.ok_or_else(|| missing("mask"))?, "mask", &limits(pixels)).map_err(unread)?;
        let given = given.map(|given| read(&given, pixels)).transpose()?.map(|given| given.picture);
        let size = (picture.width(), picture.height());
        let others = [Some((mask.width(), mask.height())), given.as_ref().map(|p| (p.width(), p.height()))];
        if others.iter().flatten().any(|other| *other != size) {
            return Err(Problem::BadRequest("picture, mask and given must be of one size".into()));
        }
        if mask.hole_count() == 0 {
            return Err(Problem::BadRequest("mask: has no white pixel, so there is nothing to fill".into()));
        }
        Ok((picture, mask, given))
    })
    .await?;
    let seed = params.seed.unwrap_or(0);
    let label = app.facts.config.label("inpainted", seed, None, place, &options);
    let made = app.tiles.engine.call(move |model| {
        let setting = Setting { place, seed, options: &options };
        let translator = Translator::new(model);
        translator.inpaint(&picture, kind, &mask, given.as_ref(), &setting, &mut |_, _| {})
    });
    let picture = made.await?.map_err(broken)?;
    let result = Output { name: kind.name(), picture, uncertainty: None, seed };
    respond(answer, vec![result], label, None).await
}

/// Invents pairs for a place.
pub async fn generate(
    State(app): State<Shared>,
    Params(params): Params<MakeParams>,
    from: From,
) -> Result<Response, Problem> {
    params.only(&["samples"])?;
    let (samples, place) = (params.samples(&app)?, params.place(&app)?);
    let answer = answer(&params, 2, Answer::Json)?;
    let options = params.options(&app.facts.generation.to_satellite)?.in_one_view();
    let _pass = pass(&app, from)?;
    let seed = params.seed.unwrap_or(0);
    let label = app.facts.config.label("generated pair", seed, None, place, &options);
    let made = app.tiles.engine.call(move |model| {
        let pair = |index: u64| {
            let seed = seed.wrapping_add(index);
            let setting = Setting { place, seed, options: &options };
            let made = Translator::new(model).generate(&setting)?;
            let output = |(kind, picture): (Modality, Picture)| Output {
                name: kind.name(),
                picture,
                uncertainty: None,
                seed,
            };
            Ok(made.into_iter().map(output).collect::<Vec<_>>())
        };
        (0..samples as u64).map(pair).collect::<Result<Vec<_>, _>>()
    });
    let made = made.await?.map_err(broken)?;
    respond(answer, made.into_iter().flatten().collect(), label, None).await
}

/// In which form results are sent.
fn answer(params: &MakeParams, results: usize, usual: Answer) -> Result<Answer, Problem> {
    match params.format {
        None if results > 1 => Ok(Answer::Json),
        None => Ok(usual),
        Some(Answer::Json) => Ok(Answer::Json),
        Some(_) if results > 1 => {
            Err(Problem::BadRequest("format: several results need json; leave it out".into()))
        }
        Some(one) => Ok(one),
    }
}

/// By how much a picture is resampled: as asked, or as its place says.
fn scale(app: &App, params: &MakeParams, place: Option<Place>) -> Result<f64, Problem> {
    if let Some(scale) = params.scale {
        let is_allowed = (0.05..=20.0).contains(&scale);
        let refused = || Problem::BadRequest("scale: must be a number between 0.05 and 20".into());
        return is_allowed.then_some(scale).ok_or_else(refused);
    }
    let trained = app.facts.config.trained_on.metres_per_pixel;
    let ratio =
        place.and_then(Place::metres_per_pixel).zip(trained).map(|(metres, trained)| metres / trained);
    Ok(ratio.filter(|ratio| resolution::is_within_reason(*ratio)).unwrap_or(1.0))
}

async fn fields(mut form: Multipart, app: &App) -> Result<[Option<Bytes>; 3], Problem> {
    let mut found = [None, None, None];
    let limit = app.config.limits.body_bytes;
    let unread = |error: axum::extract::multipart::MultipartError| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(limit),
        _ => Problem::BadRequest("the form is damaged or cut short".into()),
    };
    while let Some(field) = form.next_field().await.map_err(unread)? {
        let index = match field.name() {
            Some("picture") => 0,
            Some("mask") => 1,
            Some("given") => 2,
            _ => return Err(Problem::BadRequest("the form has picture, mask and given only".into())),
        };
        if found[index].is_some() {
            return Err(Problem::BadRequest("the form has a field twice".into()));
        }
        found[index] = Some(field.bytes().await.map_err(unread)?);
    }
    Ok(found)
}

fn limits(pixels: u64) -> PictureLimits {
    PictureLimits { max_pixels: pixels, ..PictureLimits::default() }
}

/// A PNG, JPEG, WebP or GeoTIFF.
fn read(bytes: &[u8], pixels: u64) -> Result<Input, Problem> {
    if matches!(bytes, [b'I', b'I', b'*' | b'+', 0, ..] | [b'M', b'M', 0, b'*' | b'+', ..]) {
        return read_raster(bytes, pixels);
    }
    let picture = decode_picture(bytes, "picture", &limits(pixels)).map_err(unread)?;
    Ok(Input { picture, nodata: None, place: None, bounds: None })
}

/// What is wrong with a picture, without a word of ours.
fn unread(error: PictureError) -> Problem {
    match error {
        PictureError::TooManyPixels { width, height, limit, .. } => Problem::TooLarge(format!(
            "{width} × {height} pixels are more than {limit}; send a smaller picture"
        )),
        PictureError::NotAPicture { .. }
        | PictureError::UnsupportedFormat { .. }
        | PictureError::EmptyFile { .. } => {
            Problem::UnsupportedType("send a PNG, JPEG, WebP or GeoTIFF".into())
        }
        _ => Problem::BadRequest("the picture is damaged or of a kind that is not read".into()),
    }
}

fn read_raster(bytes: &[u8], pixels: u64) -> Result<Input, Problem> {
    let damaged = |error: &dyn std::fmt::Display| {
        tracing::debug!("a raster that was sent: {error}");
        Problem::BadRequest("the GeoTIFF is damaged or of a kind that is not read".into())
    };
    let mut file = tempfile::Builder::new().suffix(".tif").tempfile().map_err(|_| Problem::Internal)?;
    file.write_all(bytes).map_err(|_| Problem::Internal)?;
    let limits =
        RasterLimits { max_window_pixels: pixels, max_block_bytes: 64 << 20, ..RasterLimits::default() };
    let reader = RasterReader::open(file.path(), &limits).map_err(|error| damaged(&error))?;
    let (width, height) = (reader.width(), reader.height());
    if u64::from(width) * u64::from(height) > pixels {
        let text = format!("{width} × {height} pixels are more than {pixels}; send a smaller picture");
        return Err(Problem::TooLarge(text));
    }
    let rendering = reader.rendering(None, Stretch::Auto).map_err(|error| damaged(&error))?;
    let window = PixelWindow::new(0, 0, width, height);
    let read = reader.read_window(0, window, &rendering).map_err(|error| damaged(&error))?;
    let (right, bottom) = (f64::from(width), f64::from(height));
    // One that lies nowhere is a picture like others.
    let place = reader.place(right / 2.0, bottom / 2.0).ok();
    let corners = [(0.0, 0.0), (right, 0.0), (0.0, bottom), (right, bottom)];
    let corners: Option<Vec<Place>> = corners.iter().map(|&(x, y)| reader.place(x, y).ok()).collect();
    let bounds = corners.map(|corners| {
        let [longitudes, latitudes] = [0, 1].map(|axis| {
            let each = corners.iter().map(|place| {
                let position = place.position();
                if axis == 0 { position.longitude() } else { position.latitude() }
            });
            (each.clone().fold(f64::INFINITY, f64::min), each.fold(f64::NEG_INFINITY, f64::max))
        });
        [longitudes.0, latitudes.0, longitudes.1, latitudes.1]
    });
    let nodata = (read.nodata.hole_count() > 0).then_some(read.nodata);
    Ok(Input { picture: read.picture, nodata, place, bounds })
}

fn blacken(picture: &mut Picture, holes: &Mask) {
    let pixels = picture.rgb_mut().as_chunks_mut::<3>().0.iter_mut().zip(holes.holes());
    pixels.filter(|(_, hole)| **hole).for_each(|(pixel, _)| *pixel = [0; 3]);
}

fn broken(error: earthmapper::translator::GenerationError) -> Problem {
    tracing::error!("a picture could not be made: {error}");
    Problem::Internal
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Problem::Internal)?
}

/// Encodes results, each with its label.
async fn respond(
    answer: Answer,
    results: Vec<Output>,
    label: Provenance,
    bounds: Option<[f64; 4]>,
) -> Result<Response, Problem> {
    let encode = move || -> Result<Response, Problem> {
        let failed = |error: PictureError| {
            tracing::error!("a picture cannot be encoded: {error}");
            Problem::Internal
        };
        let labelled = |seed: u64| WriteOptions {
            provenance: Some(Provenance { seed: Some(seed), ..label.clone() }),
            ..WriteOptions::default()
        };
        let (ending, media) = match answer {
            Answer::Json => return document(&results, labelled, bounds).map_err(failed),
            Answer::Png => ("png", "image/png"),
            Answer::Jpg => ("jpg", "image/jpeg"),
            Answer::Webp => ("webp", "image/webp"),
        };
        let first = results.first().ok_or(Problem::Internal)?;
        let bytes = encode_picture(ending, &first.picture, &labelled(first.seed)).map_err(failed)?;
        Ok(bytes_response(StatusCode::OK, media, bytes.into()))
    };
    let mut response = blocking(encode).await?;
    let headers = response.headers_mut();
    headers.insert(axum::http::header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static("x-earthmapper-synthetic"), HeaderValue::from_static("true"));
    if let Some(bounds) = bounds {
        let text = bounds.map(|edge| edge.to_string()).join(",");
        let name = HeaderName::from_static("x-earthmapper-bounds");
        headers.insert(name, HeaderValue::from_str(&text).map_err(|_| Problem::Internal)?);
    }
    Ok(response)
}

fn document(
    results: &[Output],
    labelled: impl Fn(u64) -> WriteOptions,
    bounds: Option<[f64; 4]>,
) -> Result<Response, PictureError> {
    let inline = |bytes: Vec<u8>| {
        format!("data:image/png;base64,{}", base64::engine::general_purpose::STANDARD.encode(bytes))
    };
    let mut shown = Vec::new();
    for result in results {
        let (width, height) = (result.picture.width(), result.picture.height());
        let options = labelled(result.seed);
        let mut one = json!({
            "kind": result.name,
            "seed": result.seed,
            "width": width,
            "height": height,
            "picture": inline(encode_picture("png", &result.picture, &options)?),
        });
        if let Some(values) = &result.uncertainty {
            one["uncertainty"] = json!(inline(encode_grey("png", width, height, values, &options)?));
        }
        shown.push(one);
    }
    let document: Value = json!({ "synthetic": true, "bounds": bounds, "results": shown });
    Ok(json_response(StatusCode::OK, &document))
}
