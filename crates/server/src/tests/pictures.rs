//! Pictures that are sent.

use axum::body::Body;
use axum::http::Request;
use base64::Engine as _;
use earthmapper_geo::raster::{AffineTransform, Epsg, GeoReference, RasterOptions, RasterWriter};
use earthmapper_geo::{Picture, PictureLimits, decode_picture};

use super::{Served, png};
use crate::testing::SIDE;

fn numbered(width: u32, height: u32) -> Picture {
    Picture::drawn(width, height, |x, y| [(x * 9) as u8, (y * 7) as u8, (x ^ y) as u8])
}

fn form(parts: &[(&str, Vec<u8>)]) -> (String, Vec<u8>) {
    let boundary = "frontier";
    let mut body = Vec::new();
    for (name, bytes) in parts {
        let head = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"a\"\r\n\r\n"
        );
        body.extend(head.into_bytes());
        body.extend(bytes);
        body.extend(b"\r\n");
    }
    body.extend(format!("--{boundary}--\r\n").into_bytes());
    (format!("multipart/form-data; boundary={boundary}"), body)
}

fn inline(text: &str) -> Picture {
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(text.strip_prefix("data:image/png;base64,").unwrap())
        .unwrap();
    decode_picture(&bytes, "inline", &PictureLimits::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_are_translated() {
    let served = Served::new().await;
    let sent = png(&numbered(30, 21));
    let path = "/v1/translate?to=map&seed=3";
    let made = served.post(path, "image/png", sent.clone()).await.is(200);
    assert_eq!(made.header("x-earthmapper-synthetic"), "true");
    assert_eq!((made.picture().width(), made.picture().height()), (30, 21));
    let again = served.post(path, "image/png", sent.clone()).await.is(200);
    assert_eq!(made.picture(), again.picture());
    let several = served.post(&format!("{path}&samples=2"), "image/png", sent.clone()).await.is(200).json();
    let results = several["results"].as_array().unwrap();
    assert_eq!((results.len(), several["synthetic"].as_bool()), (2, Some(true)));
    assert_eq!(inline(results[0]["picture"].as_str().unwrap()), made.picture());
    assert_eq!(inline(results[1]["uncertainty"].as_str().unwrap()).height(), 21);
    let viewed = served.post(&format!("{path}&views=4"), "image/png", sent.clone()).await.is(200);
    assert_ne!(viewed.picture(), made.picture());
    let plain = served.post(&format!("{path}&views=1"), "image/png", sent.clone()).await.is(200);
    assert_eq!(plain.picture(), made.picture());
    for wrong in [
        "",
        "?to=map&seed=x",
        "?to=map&guidance=strong",
        "?to=map&temperature=0",
        "?to=map&temperature=101",
        "?to=map&lat=1&lon=361",
        "?to=map&metres_per_pixel=0",
        "?to=map&temperature=NaN",
        "?to=map&metres_per_pixel=-0.999",
        "?to=map&lat=3",
        "?to=map&lat=99&lon=1",
        "?to=map&as=map",
        "?to=map&nonsense=1",
        "?to=map&samples=0",
        "?to=map&views=3",
        "?to=satellite&views=4",
        "?to=map&samples=2&format=png",
        "?to=map&top_p=2",
        "?to=map&top_k=1000001",
        "?to=map&scale=0",
    ] {
        served.post(&format!("/v1/translate{wrong}"), "image/png", sent.clone()).await.is(400);
    }
    let options = "&guidance=2,2,2&temperature=0.5&top_k=3&top_p=0.5&lat=40&lon=-74&format=webp";
    let webp = served.post(&format!("{path}{options}"), "image/png", sent).await.is(200);
    assert_eq!(webp.header("content-type"), "image/webp");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_picture_is_refused_in_few_words() {
    let served = Served::new().await;
    let whole = png(&numbered(16, 16));
    for (body, status) in [
        (Vec::new(), 415),
        (b"GIF89a".to_vec(), 415),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>".to_vec(), 415),
        (whole[..whole.len() / 2].to_vec(), 400),
        (b"II*\0\x08\0\0\0nonsense".to_vec(), 400),
        (b"MM\0*".to_vec(), 400),
    ] {
        let answer = served.post("/v1/translate?to=map", "application/octet-stream", body).await.is(status);
        let text = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(!text.contains('/') && text.len() < 100, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_geotiff_says_where_it_lies() {
    let served = Served::new().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tif");
    let mut options = RasterOptions::new(24, 20);
    let transform = AffineTransform::north_up((11.0, 44.0), (0.0003, 0.0003));
    options.georeference = Some(GeoReference::from_epsg(transform, Epsg(4326)).unwrap());
    let mut writer = RasterWriter::create(&path, options).unwrap();
    writer.write_rows(&numbered(24, 20), None).unwrap();
    writer.finish().unwrap();
    let made = served.post("/v1/translate?to=map", "image/tiff", std::fs::read(&path).unwrap()).await.is(200);
    assert_eq!((made.picture().width(), made.picture().height()), (24, 20));
    let bounds: Vec<f64> =
        made.header("x-earthmapper-bounds").split(',').map(|edge| edge.parse().unwrap()).collect();
    for (edge, expected) in bounds.iter().zip([11.0, 43.994, 11.0072, 44.0]) {
        assert!((edge - expected).abs() < 1e-9, "{bounds:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_hole_is_filled() {
    let served = Served::new().await;
    let picture = numbered(24, 20);
    let is_hole = |x: u32, y: u32| (8..15).contains(&x) && (5..12).contains(&y);
    let mask = Picture::drawn(24, 20, |x, y| if is_hole(x, y) { [255; 3] } else { [0; 3] });
    let parts = [("picture", png(&picture)), ("mask", png(&mask)), ("given", png(&numbered(24, 20)))];
    for count in [2, 3] {
        let (kind, body) = form(&parts[..count]);
        let made = served.post("/v1/inpaint?as=satellite&seed=1", &kind, body).await.is(200).picture();
        let mut changed = 0;
        for (x, y) in (0..20).flat_map(|y| (0..24).map(move |x| (x, y))) {
            match is_hole(x, y) {
                true => changed += usize::from(made.pixel(x, y) != picture.pixel(x, y)),
                false => assert_eq!(made.pixel(x, y), picture.pixel(x, y)),
            }
        }
        assert!(changed > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_that_make_no_sense_are_refused() {
    let served = Served::new().await;
    let (picture, white) = (png(&numbered(16, 16)), png(&Picture::filled(16, 16, [255; 3])));
    let black = png(&Picture::filled(16, 16, [0; 3]));
    for parts in [
        vec![],
        vec![("picture", picture.clone())],
        vec![("mask", white.clone())],
        vec![("picture", picture.clone()), ("mask", black)],
        vec![("picture", picture.clone()), ("mask", png(&Picture::filled(16, 17, [255; 3])))],
        vec![("picture", picture.clone()), ("mask", white.clone()), ("other", white.clone())],
        vec![("picture", picture.clone()), ("picture", picture.clone()), ("mask", white.clone())],
    ] {
        let (kind, body) = form(&parts);
        served.post("/v1/inpaint?as=map", &kind, body).await.is(400);
    }
    served.post("/v1/inpaint?as=map", "text/plain", "a").await.is(415);
    let (kind, body) = form(&[("picture", picture), ("mask", white)]);
    served.post("/v1/inpaint", &kind, body.clone()).await.is(400);
    served.post("/v1/inpaint?as=map", &kind, body[..body.len() - 40].to_vec()).await.is(400);
}

#[tokio::test(flavor = "multi_thread")]
async fn pairs_are_invented() {
    let served = Served::new().await;
    let post = |path: &str| Request::post(path).body(Body::empty()).unwrap();
    let made = served.send(post("/v1/generate?lat=40.7&lon=-74&seed=9&samples=2")).await.is(200).json();
    let results = made["results"].as_array().unwrap();
    let kinds: Vec<&str> = results.iter().map(|one| one["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["satellite", "map", "satellite", "map"]);
    assert_eq!(inline(results[0]["picture"].as_str().unwrap()).width(), SIDE);
    assert_ne!(results[0]["picture"], results[2]["picture"]);
    let again = served.send(post("/v1/generate?lat=40.7&lon=-74&seed=10")).await.is(200).json();
    assert_eq!(again["results"][0]["picture"], results[2]["picture"], "seeds are counted on");
}
