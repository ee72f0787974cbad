//! Protocol buffers and the geometry of Mapbox vector tiles, as far as tests need them.

// Every test file is a program of its own and uses a part of this.
#![allow(dead_code)]

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

pub fn number(tag: u64, value: u64) -> Vec<u8> {
    [varint(tag << 3), varint(value)].concat()
}

pub fn field(tag: u64, bytes: &[u8]) -> Vec<u8> {
    [varint(tag << 3 | 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
}

pub fn packed(tag: u64, values: &[u64]) -> Vec<u8> {
    field(tag, &values.iter().flat_map(|value| varint(*value)).collect::<Vec<_>>())
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Differences, as zigzag numbers.
pub fn steps(values: &[i64]) -> Vec<u64> {
    let before = std::iter::once(0).chain(values.iter().copied());
    values.iter().zip(before).map(|(value, before)| zigzag(value - before)).collect()
}

/// A command of a vector tile's geometry: 1 moves, 2 draws, 7 closes.
pub fn command(what: u64, count: u64) -> u64 {
    what | count << 3
}

/// A step to the right and down.
pub fn step(right: i64, down: i64) -> [u64; 2] {
    [zigzag(right), zigzag(down)]
}
