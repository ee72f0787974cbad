//! Pictures of one size in a row, with a gap between them:
//! `cargo run --release --example side_by_side -- OUT.png IN.png IN.png IN.png`

use earthmapper_geo::{Picture, PictureLimits, WriteOptions, read_picture, write_picture};

const GAP: u32 = 8;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    let [output, inputs @ ..] = &paths[..] else { return Err("OUT.png and pictures".into()) };
    let limits = PictureLimits::default();
    let pictures: Vec<Picture> =
        inputs.iter().map(|path| read_picture(path, &limits)).collect::<Result<_, _>>()?;
    let first = pictures.first().ok_or("at least one picture")?;
    let (width, height) = (first.width(), first.height());
    if let Some(at) =
        pictures.iter().position(|picture| (picture.width(), picture.height()) != (width, height))
    {
        return Err(format!("{}: not of the size of {}", inputs[at], inputs[0]).into());
    }
    let mut row = Picture::filled((width + GAP) * pictures.len() as u32 - GAP, height, [u8::MAX; 3]);
    for (picture, at) in pictures.iter().zip(0..) {
        row.paste(picture, at * (width + GAP), 0);
    }
    write_picture(output, &row, &WriteOptions { overwrite: true, ..Default::default() })?;
    Ok(())
}
