//! An invented harbour town of five kilometres by five, laid out in metres around longitude 0, latitude 0.
//!
//! Districts are the areas nearest to one of a few points; each has a grid of streets turned its own way. A river, a
//! bay, parks, two motorways and avenues from district to district come on top.

use std::fmt::Write;

use earthmapper::sampler::derive_seed;

/// Half a side of the town in metres.
pub const HALF: f64 = 2446.0;

/// Metres in a degree at the equator.
pub const METRES_PER_DEGREE: f64 = 111_319.490_793;

/// Metres between the points at which streets are looked at.
const STEP: f64 = 12.0;

type Point = (f64, f64);

/// A district: its middle, the turn of its streets in degrees, and metres between streets either way.
const DISTRICTS: [(Point, f64, f64, f64); 11] = [
    ((-150.0, 650.0), 8.0, 82.0, 150.0),
    ((-1350.0, 900.0), -14.0, 76.0, 190.0),
    ((-1700.0, -650.0), 21.0, 88.0, 170.0),
    ((-450.0, -750.0), -4.0, 72.0, 130.0),
    ((950.0, 1250.0), 31.0, 94.0, 200.0),
    ((1750.0, 300.0), -9.0, 84.0, 160.0),
    ((650.0, -350.0), 14.0, 78.0, 140.0),
    ((-950.0, -1900.0), 3.0, 98.0, 220.0),
    ((-700.0, 2050.0), 17.0, 90.0, 180.0),
    ((1900.0, 1950.0), -27.0, 96.0, 210.0),
    ((-2200.0, 2100.0), -33.0, 92.0, 200.0),
];

/// Parks: middle, half width, half height.
const PARKS: [(Point, f64, f64); 9] = [
    ((-500.0, 1150.0), 330.0, 190.0),
    ((250.0, -900.0), 170.0, 120.0),
    ((-1750.0, 150.0), 260.0, 200.0),
    ((1300.0, 850.0), 190.0, 260.0),
    ((-1250.0, -1250.0), 300.0, 170.0),
    ((500.0, 1900.0), 380.0, 210.0),
    ((-2050.0, 1450.0), 180.0, 260.0),
    ((1950.0, -250.0), 150.0, 130.0),
    ((-200.0, -1750.0), 200.0, 150.0),
];

/// The town as GeoJSON, each feature with its class.
pub fn geojson() -> String {
    let mut town = Town { text: String::from("{\"type\":\"FeatureCollection\",\"features\":["), first: true };
    let river: Vec<Point> = (-14..=14)
        .map(|i| f64::from(i) * 190.0)
        .map(|x| (x, river(x) + river_width(x)))
        .chain((-14..=14).rev().map(|i| f64::from(i) * 190.0).map(|x| (x, river(x) - river_width(x))))
        .collect();
    town.area("water", &river);
    let mut bay: Vec<Point> = (0..=36).map(|i| f64::from(i) * 80.0 + 100.0).map(|x| (x, bay(x))).collect();
    bay.extend([(3200.0, -3200.0), (100.0, -3200.0)]);
    town.area("water", &bay);
    for (index, park) in PARKS.iter().enumerate() {
        town.area("park", &blob(index as u64, *park));
    }
    for (index, district) in DISTRICTS.iter().enumerate() {
        for street in streets(index, district) {
            town.line("minor", &street);
        }
    }
    for (i, from) in DISTRICTS.iter().enumerate() {
        for to in DISTRICTS.iter().skip(i + 1) {
            let apart = (from.0.0 - to.0.0).hypot(from.0.1 - to.0.1);
            if apart < 1500.0 {
                for part in runs(&curve(from.0, to.0, 60.0), |point| !is_bay(point)) {
                    town.line("secondary", &part);
                }
            }
        }
    }
    let north_south: Vec<Point> =
        (-30..=30).map(|i| f64::from(i) * 100.0).map(|y| (-1020.0 + 260.0 * (y / 1300.0).sin(), y)).collect();
    town.line("motorway", &north_south);
    let around: Vec<Point> = (-30..=30)
        .map(|i| f64::from(i) * 100.0)
        .map(|x| (x, 1520.0 + 240.0 * (x / 1100.0).cos() - 0.08 * x))
        .collect();
    town.line("motorway", &around);
    town.text + "]}"
}

struct Town {
    text: String,
    first: bool,
}

impl Town {
    fn area(&mut self, class: &str, ring: &[Point]) {
        let closed: Vec<Point> = ring.iter().chain(ring.first()).copied().collect();
        self.feature(class, "Polygon", &format!("[{}]", positions(&closed)));
    }

    fn line(&mut self, class: &str, points: &[Point]) {
        self.feature(class, "LineString", &positions(points));
    }

    fn feature(&mut self, class: &str, kind: &str, coordinates: &str) {
        let comma = if self.first { "" } else { "," };
        self.first = false;
        let _ = write!(
            self.text,
            "{comma}{{\"type\":\"Feature\",\"properties\":{{\"class\":\"{class}\"}},\"geometry\":{{\"type\":\"{kind}\",\"coordinates\":{coordinates}}}}}"
        );
    }
}

fn positions(points: &[Point]) -> String {
    let degrees = |metres: f64| metres / METRES_PER_DEGREE;
    let each: Vec<String> =
        points.iter().map(|&(x, y)| format!("[{:.7},{:.7}]", degrees(x), degrees(y))).collect();
    format!("[{}]", each.join(","))
}

/// Where the middle of the river is.
fn river(x: f64) -> f64 {
    120.0 + 260.0 * (x / 640.0).sin() + 110.0 * (x / 270.0 + 1.0).sin() - 0.12 * x
}

/// Half its width.
fn river_width(x: f64) -> f64 {
    52.0 + 12.0 * (x / 400.0).sin() + 0.016 * (x + 2500.0)
}

/// The shore of the bay, which lies south of it.
fn bay(x: f64) -> f64 {
    -1250.0 + 190.0 * (x / 330.0).sin() + 70.0 * (x / 95.0).sin() - 1400.0 * (-(x - 100.0) / 300.0).exp()
}

fn is_bay((x, y): Point) -> bool {
    x > 100.0 && y < bay(x) + 12.0
}

fn is_water(point: Point) -> bool {
    is_bay(point) || (point.1 - river(point.0)).abs() < river_width(point.0) + 10.0
}

/// How far a park reaches from its middle in a direction, against an ellipse.
fn bulge(index: u64, angle: f64) -> f64 {
    let phase = (derive_seed(7, &[index]) % 628) as f64 / 100.0;
    1.0 + 0.16 * (3.0 * angle + phase).sin() + 0.09 * (5.0 * angle - phase).cos()
}

fn blob(index: u64, ((x, y), width, height): (Point, f64, f64)) -> Vec<Point> {
    let angle = |i: u32| f64::from(i) * std::f64::consts::TAU / 28.0;
    let point = |angle: f64| {
        let reach = bulge(index, angle);
        (x + width * reach * angle.cos(), y + height * reach * angle.sin())
    };
    (0..28).map(|i| point(angle(i))).collect()
}

fn is_park(point: Point) -> bool {
    PARKS.iter().enumerate().any(|(index, &((x, y), width, height))| {
        let (across, along) = ((point.0 - x) / width, (point.1 - y) / height);
        across.hypot(along) < bulge(index as u64, along.atan2(across)) + 0.03
    })
}

/// The district that a point belongs to.
fn district(point: Point) -> usize {
    let apart = |index: &usize| {
        let (x, y) = DISTRICTS[*index].0;
        (point.0 - x).hypot(point.1 - y)
    };
    (0..DISTRICTS.len()).min_by(|a, b| apart(a).total_cmp(&apart(b))).expect("there are districts")
}

/// The streets of a district: lines of its turned grid, as far as they lie in it and on dry ground outside parks.
fn streets(index: usize, &((x, y), turn, narrow, wide): &(Point, f64, f64, f64)) -> Vec<Vec<Point>> {
    let (sin, cos) = turn.to_radians().sin_cos();
    let place = |right: f64, up: f64| (x + right * cos - up * sin, y + right * sin + up * cos);
    let steps = (2600.0 / STEP) as i32;
    let is_built = |point: Point| {
        let inside = point.0.abs() < HALF + 100.0 && point.1.abs() < HALF + 100.0;
        inside && district(point) == index && !is_water(point) && !is_park(point)
    };
    let mut all = Vec::new();
    for (apart, is_across) in [(narrow, false), (wide, true)] {
        let count = (2600.0 / apart) as i32;
        for line in -count..=count {
            // Not every block is as long as the others.
            let part = derive_seed(index as u64, &[u64::from(is_across), (line + 1000) as u64]);
            let offset = f64::from(line) * apart + (part % 17) as f64 - 8.0;
            if part.is_multiple_of(11) {
                continue;
            }
            let points: Vec<Point> = (-steps..=steps)
                .map(|step| f64::from(step) * STEP)
                .map(|along| if is_across { place(along, offset) } else { place(offset, along) })
                .collect();
            all.extend(runs(&points, is_built));
        }
    }
    all
}

/// The stretches of a line all of whose points are wanted, without the points between their ends where they are straight.
fn runs(points: &[Point], is_wanted: impl Fn(Point) -> bool) -> Vec<Vec<Point>> {
    let mut all: Vec<Vec<Point>> = vec![Vec::new()];
    for &point in points {
        let run = all.last_mut().expect("there is always one");
        match is_wanted(point) {
            true => run.push(point),
            false if run.is_empty() => {}
            false => all.push(Vec::new()),
        }
    }
    all.retain(|run| run.len() > 3);
    all.iter().map(|run| simplified(run)).collect()
}

fn simplified(run: &[Point]) -> Vec<Point> {
    let mut kept = vec![run[0]];
    for pair in run.windows(3) {
        let (a, b, c) = (pair[0], pair[1], pair[2]);
        let bend = (b.0 - a.0) * (c.1 - a.1) - (b.1 - a.1) * (c.0 - a.0);
        if bend.abs() > 0.5 {
            kept.push(b);
        }
    }
    kept.push(run[run.len() - 1]);
    kept
}

/// A line from place to place that bends by so many metres.
fn curve(from: Point, to: Point, bend: f64) -> Vec<Point> {
    let (across, along) = (to.0 - from.0, to.1 - from.1);
    let length = across.hypot(along);
    let point = |i: u32| {
        let share = f64::from(i) / 40.0;
        let aside = bend * (share * std::f64::consts::PI).sin();
        (from.0 + across * share - along / length * aside, from.1 + along * share + across / length * aside)
    };
    (0..=40).map(point).collect()
}
